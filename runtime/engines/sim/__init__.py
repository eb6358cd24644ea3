"""The simulated engine: a program that speaks the API of vLLM or SGLang and needs no GPU."""
