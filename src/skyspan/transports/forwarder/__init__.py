"""The forwarder: a process that holds one SSH connection with its forwards, and outlives the engine."""
