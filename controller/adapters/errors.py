"""Why nothing was done about an adapter that somebody asked for. No HTTP here: router/envelope.py has the statuses.

AdapterError
├── UnknownAdapter      there is none of that name
├── UnknownBase         no instance serves the model it was made for
├── NameTaken           the name leads to something else already
├── Declared            the YAML file says what it is: it is changed there
└── BeingDeleted        not gone yet
"""

from __future__ import annotations


class AdapterError(Exception):
    pass


class UnknownAdapter(AdapterError):
    pass


class UnknownBase(AdapterError):
    pass


class NameTaken(AdapterError):
    pass


class Declared(AdapterError):
    pass


class BeingDeleted(AdapterError):
    pass
