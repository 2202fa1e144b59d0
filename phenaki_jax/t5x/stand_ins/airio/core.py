"""The classes that t5x asks whether something is one of; nothing is."""


class DatasetProviderBase:
    """A task or mixture of airio."""


class Task(DatasetProviderBase):
    """A task of airio."""


class Mixture(DatasetProviderBase):
    """A mixture of airio."""


class AirIODatasetIterator:
    """What airio iterates with."""
