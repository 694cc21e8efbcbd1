"""What every stage needs and no stage owns: configuration, devices, records, output."""
