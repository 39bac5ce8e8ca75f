"""The prompt texts, versioned: a caption says in its row by which of them it was made."""

#: The `measured` backend asks no model: its version is that of the sentences in captioning.measured and of the thresholds behind their words.
MEASURED_VERSION = "measured/1"
