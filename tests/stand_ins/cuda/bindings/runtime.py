"""The calls of cuda-python that this project makes, on the host's own memory."""
# ruff: noqa: N801, N802, N815 - CUDA's own names

import ctypes
from enum import IntEnum

BUFFERS = {}


class cudaError_t(IntEnum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1


class cudaMemcpyKind(IntEnum):
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2


def cudaStreamCreate():
    return cudaError_t.cudaSuccess, "stream"


def cudaMalloc(size):
    buffer = ctypes.create_string_buffer(size)
    BUFFERS[ctypes.addressof(buffer)] = buffer
    return cudaError_t.cudaSuccess, ctypes.addressof(buffer)


def cudaMemcpyAsync(target, source, size, kind, stream):
    device = target if kind == cudaMemcpyKind.cudaMemcpyHostToDevice else source
    if device not in BUFFERS or size != ctypes.sizeof(BUFFERS[device]) or stream != "stream":
        return (cudaError_t.cudaErrorInvalidValue,)
    ctypes.memmove(target, source, size)
    return (cudaError_t.cudaSuccess,)


def cudaStreamSynchronize(stream):
    assert stream == "stream"
    return (cudaError_t.cudaSuccess,)


def cudaFree(address):
    del BUFFERS[address]
    return (cudaError_t.cudaSuccess,)
