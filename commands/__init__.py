"""What ``lumina`` does on the command line: ``*_app`` reads the options, the other modules do what they ask."""
