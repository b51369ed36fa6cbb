"""Payment providers: what one is (contract.py), who judges an exchange (transport.py), which exist (registry.py)."""
