"""The stand-in world: the same composition, run for real inside isolated network namespaces.

`world` builds it, as `spec` says, of parts that do not know it: `hosts`, `underlay`, `services`, `cloud`, `faults`,
`isolation`. `cycle` rehearses a composition in it, `snapshot` proves that nothing is left, `instructions` from inside
disturb it.
"""
