"""Signal to features: power spectra and differential entropy per channel and band."""
