"""Compute kernels: C++ for x86 (AVX-512, AVX2) and a portable build, with plain-torch references beside them."""
