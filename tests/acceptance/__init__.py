"""Hours-long proofs: the quantized guide (`quantization`) and every engine, built twice (`engines`)."""
