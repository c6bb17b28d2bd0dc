"""What can be read: views of endpoints, traffic, history, models. Nothing here changes anything.

Read in this order: ``views`` (the shapes), ``endpoints`` (how they are filled), ``queries`` (what ``Control`` has of them).
"""
