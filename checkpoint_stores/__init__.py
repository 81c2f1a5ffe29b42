"""Where runs are remembered: rows, bytes, leases and decisions; nothing of graphs.

The public door is `trailmark.checkpoint_stores`.  This package imports nothing
by itself, so that who needs the memory store never pays for the SQL store.
"""
