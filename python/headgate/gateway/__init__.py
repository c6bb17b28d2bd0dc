"""One gateway process: its settings, its parts in order, its ports, its ``--models`` folder.

Read in this order: ``units`` and ``settings`` (what a person writes), ``process`` (the life of a process),
``listeners`` (the control plane's ports), ``supervise`` (its parent), ``models_folder``, ``checks`` (what doctor looks at),
``native_module``. Not here: what a write means (``headgate.control``), the command line (``headgate.cli``).
"""
