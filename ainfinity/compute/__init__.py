"""Where attempts run. Every backend keeps the contract of `port.Compute`."""
