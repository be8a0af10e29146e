"""The composition that `skyspan init` writes: short, commented, and it runs at once."""

from __future__ import annotations

import re

from skyspan.model.address import is_name


def starter(name: str) -> str:
    """The text of a first `skyspan.yaml` for a deployment called `name` (a folder's name will do)."""
    return _TEXT.replace("@NAME@", deployment_name(name))


def deployment_name(text: str) -> str:
    """A valid name as near to `text` as there is one."""
    plain = re.sub(r"[^a-z0-9_-]+", "-", text.lower()).strip("-_")[:63].rstrip("-_")
    if is_name(plain):
        return plain
    return f"d-{plain}"[:63].rstrip("-_") if plain else "hello"


_TEXT = """\
# One deployment, described in one file. Try:  skyspan plan, skyspan up, skyspan outputs, skyspan destroy
skyspan: 1
name: @NAME@

inputs:                      # given by --input greeting=…, a file, SKYSPAN_INPUT_GREETING, or the default
  greeting: {type: string, default: Hello}

stages:                      # in any order: what a stage reads decides when it runs
  compose:
    uses: command            # any program; `skyspan providers` lists what else there is
    with:
      run: |
        mkdir -p out
        printf '%s from Skyspan\\n' "$GREETING" > out/greeting.txt
        echo "file=out/greeting.txt" >> "$SKYSPAN_OUTPUT"
      env: {GREETING: "${{ inputs.greeting }}"}
      check: test -f out/greeting.txt          # is it there? decides whether it must run again
      destroy: rm -rf out                      # what `skyspan destroy` does
    outputs:                                   # the contract: checked when the stage ends
      file: {type: string}

  show:
    uses: command
    with:
      run: cat "$FILE"
      env: {FILE: "${{ stages.compose.outputs.file }}"}     # reading an output makes the dependency
"""
