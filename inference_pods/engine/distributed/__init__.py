"""Tensor parallelism within one pod: rank 0 schedules and serves, the other ranks are processes that follow its steps.

placement.py decides device and ranks, launch.py starts and watches the processes, wire.py is what a step looks like
between them, group.py the process group, runner.py rank 0's side and worker.py the others'.
"""
