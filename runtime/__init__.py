"""What every stage needs and no stage owns: configuration, devices, records, output."""

__version__ = "0.1.0"
