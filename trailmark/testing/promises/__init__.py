"""The promises of `CheckpointStore`, one file for each thing that a store does.

Each is a class of tests, a part of `trailmark.testing.contract.StoreContract`, whose fixtures (``store``, ``other``, ``store_factory``) it
shares.  None knows another, and a store has to keep them all.
"""
