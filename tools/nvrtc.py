#!/usr/bin/env python3
"""Compiles one CUDA source with NVRTC so that the same source gives the same PTX: the inner part of tools/build_ptx.py.

    python3 tools/nvrtc.py < job.json > result.json

The job: {"folder", "source", "texts": {name: text}, "options", "start"}; the result: {"code", "log", "ptx"}.

NVRTC walks through tables that are keyed by addresses, so large kernels come out in one of several equally good orders,
by where the system happens to put its memory. Here it always gets the same addresses: everything above `start` is
filled with reservations before each call, and each call runs in a thread of its own, whose memory the C library then
takes from below. Threads that call a C function with arguments need a few instructions of machine code; the wheel of
NVRTC is for x86-64 alone, so these are too.
"""

import ctypes
import json
import os
import pathlib
import sys

# slots[0..6] are arguments, slots[6] the function, slots[7] becomes its result
CALL = bytes.fromhex(
    "53"        # push rbx
    "4889fb"    # mov rbx, rdi
    "488b3b"    # mov rdi, [rbx]
    "488b7308"  # mov rsi, [rbx + 8]
    "488b5310"  # mov rdx, [rbx + 16]
    "488b4b18"  # mov rcx, [rbx + 24]
    "4c8b4320"  # mov r8, [rbx + 32]
    "4c8b4b28"  # mov r9, [rbx + 40]
    "ff5330"    # call [rbx + 48]
    "48894338"  # mov [rbx + 56], rax
    "5b"        # pop rbx
    "31c0"      # xor eax, eax
    "c3"        # ret
)
READ_WRITE_EXECUTE, PRIVATE_ANONYMOUS, RESERVED = 7, 0x22, 0x104022
NOW, GLOBAL = 2, 0x100
# address space between the starts of two calls
ROOM = 1 << 36
# the libraries' folder is opened as this descriptor: the length of a path moves everything that is allocated after it
FOLDER = 99


class Place:
    """Calls C functions, each in a fresh thread and with all free addresses above a line taken."""

    def __init__(self, start):
        self.start = start
        self.libc = ctypes.CDLL(None)
        self.libc.mmap.restype = ctypes.c_void_p
        self.libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
        self.libc.dlsym.restype = ctypes.c_void_p
        self.libc.dlsym.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
        # what NVRTC needs of the system, before the line is drawn: its size differs from system to system
        for name in ("libpthread.so.0", "libdl.so.2", "librt.so.1", "libm.so.6", "libgcc_s.so.1"):
            ctypes.CDLL(name)
        self.code = self.libc.mmap(None, len(CALL), READ_WRITE_EXECUTE, PRIVATE_ANONYMOUS, -1, 0)
        ctypes.memmove(self.code, CALL, len(CALL))

    def fill(self):
        """Reserves every gap between the next line and the highest library."""
        self.start -= ROOM
        at = self.start
        for line in pathlib.Path("/proc/self/maps").read_text().splitlines():
            words = line.split()
            first, end = (int(word, 16) for word in words[0].split("-"))
            if words[-1] == "[stack]":
                return
            if first > at:
                self.libc.mmap(at, first - at, 0, RESERVED, -1, 0)
            at = max(at, end)

    def call(self, function, *arguments):
        """The function's result; arguments are numbers and things of ctypes."""
        slots = (ctypes.c_uint64 * 8)()
        for i, argument in enumerate(arguments):
            slots[i] = argument if isinstance(argument, int) else ctypes.cast(argument, ctypes.c_void_p).value
        slots[6] = function if isinstance(function, int) else ctypes.cast(function, ctypes.c_void_p).value
        thread = ctypes.c_ulong()
        self.fill()
        self.libc.pthread_create(ctypes.byref(thread), None, ctypes.c_void_p(self.code), slots)
        self.libc.pthread_join(thread, None)
        return slots[7]


def main():
    job = json.load(sys.stdin)
    os.dup2(os.open(job["folder"], os.O_RDONLY), FOLDER)
    place = Place(job["start"])
    for name, flags in (("libnvrtc-builtins.so.12.0", NOW | GLOBAL), ("libnvrtc.so.12", NOW)):
        handle = place.call(place.libc.dlopen, ctypes.c_char_p(f"/proc/self/fd/{FOLDER}/{name}".encode()), flags)
        if not handle:
            sys.exit(f"{job['folder']}/{name} cannot be loaded")

    def symbol(name):
        return place.libc.dlsym(handle, name.encode())

    def strings(words):
        return (ctypes.c_char_p * len(words))(*[word.encode() for word in words])

    program, size = ctypes.c_void_p(), ctypes.c_size_t()

    def text(what):
        get = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
        get(symbol(f"nvrtcGet{what}Size"))(program.value, ctypes.addressof(size))
        held = ctypes.create_string_buffer(max(1, size.value))
        get(symbol(f"nvrtcGet{what}"))(program.value, ctypes.addressof(held))
        return held.value.decode()

    source, texts, options = job["source"], job["texts"], strings(job["options"])
    includes = [name for name in sorted(texts) if name != source]
    place.call(symbol("nvrtcCreateProgram"), ctypes.addressof(program), ctypes.c_char_p(texts[source].encode()),
               ctypes.c_char_p(source.encode()), len(includes), strings([texts[name] for name in includes]),
               strings(includes))
    code = place.call(symbol("nvrtcCompileProgram"), program.value, len(job["options"]), options)
    code &= 0xFFFFFFFF
    json.dump({"code": code, "log": text("ProgramLog"), "ptx": "" if code else text("PTX")}, sys.stdout)


if __name__ == "__main__":
    main()
