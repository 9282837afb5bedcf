from servingd.embedded import Server as Server

__version__: str
