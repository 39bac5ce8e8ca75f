"""What each filter measures, and the rules that judge."""
