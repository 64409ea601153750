"""Rollouts: evidence from requests, what follows from it, and the traffic that is moved by it.

From gateways' usage logs to a decision::

    counting.py   requests → tallies of a stage, in the transaction that takes them in
    evidence.py   tallies → how much they speak against the canary: the sequential test
    judging.py    evidence, requests, time → stay, go on, or go back
    life.py       that → traffic, state and timeline
"""
