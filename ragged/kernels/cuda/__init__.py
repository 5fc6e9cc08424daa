"""Kernels for NVIDIA GPUs: one CUDA C++ source for every cell, both passes and both backends.

`recurrent.cu` and the headers beside it hold the loops, with the cells of `kernels/cells.hpp`. A
kernel is compiled for a cell, a pass, a hidden size, a dtype and a GPU (see `plans`) by NVRTC from
the wheel that PyTorch's and JAX's CUDA builds bring (`nvrtc`), and kept like the C++ libraries
(`cubins`). Nothing here imports a framework.

These kernels have not run on a GPU yet. Host threads that play one (`threads.hpp`) prove what they
compute, and that they do not race; that they are fast is not known.
"""
