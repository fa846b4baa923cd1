"""Stand-ins for the CLIs: small programs that speak their protocols and misbehave on command."""
