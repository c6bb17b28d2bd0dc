"""How a change becomes durable and served: decide, propose, load, swap, confirm, repair.

Read in this order: ``endpoint`` (what is in memory), ``decisions`` (what each call means), ``writer`` (the steps), ``start_recovery`` (the
start). Not here: what can be read (``reads``).
"""
