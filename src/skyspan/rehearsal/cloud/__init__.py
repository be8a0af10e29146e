"""The stand-in AWS: its server, what it holds, and what that means for the world's networks."""
