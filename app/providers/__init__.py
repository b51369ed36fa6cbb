"""The payment providers: what one is (contract.py), who judges its answers (transport.py), which exist (registry.py)."""
