#!/usr/bin/env python3
"""Compiles kernels/*.cu to kernels/ptx/*.ptx with a pinned NVRTC, and reads registers and instructions of the result.

    python3 tools/build_ptx.py                              # every module of kernels/variants.txt
    python3 tools/build_ptx.py --module schedule --dry      # does it compile? writes nothing
    python3 tools/build_ptx.py --check                      # exit 1 where the committed PTX is not that of the sources,
                                                            # 4 where it is, but comes out in another order here
    python3 tools/build_ptx.py --resources                  # registers, spills, occupancy, instructions of every entry
    python3 tools/build_ptx.py --loops                      # its hottest loop, and what share of the peak that allows
    python3 tools/build_ptx.py --gate                       # exit 1 where an entry is over kernels/budgets.txt

Needs no GPU and no CUDA toolkit: the compiler, the assembler and the disassembler are wheels of PyPI, pinned by version
and hash, put by pip into --cache; exit code 3 where pip cannot have them. --root is the tree whose kernels/ is meant
(the one that this script is in).
"""

import argparse
import concurrent.futures
import difflib
import fcntl
import hashlib
import json
import os
import pathlib
import posixpath
import re
import resource
import subprocess
import sys
import tempfile

# (package, version, sha256 of the x86-64 wheel)
NVRTC = ("nvidia-cuda-nvrtc-cu12", "12.0.140", "8e94e991d85c422de4da87bdc7472fdc1364367bd4aace7000b559cd33122071")
PTXAS = ("nvidia-cuda-nvcc-cu12", "12.9.86", "5d6a0d32fdc7ea39917c20065614ae93add6f577d840233237ff08e9a38f58f0")
NVDISASM = ("nvidia-cuda-nvdisasm", "13.2.86", "53606e719ecae07a2335f95902d5a1393a0cc1c317499ee7ffcf628a44385f2c")

# The same words are in tests/ptx.rs: who changes them here compiles all modules again.
OPTIONS = ["--gpu-architecture=compute_80", "--std=c++17", "--fmad=false"]
COMPILER = "nvrtc 12.0.140"

# Addresses of tools/nvrtc.py: the first is the one to compile with. A system whose C library manages memory otherwise
# may meet the committed text with another one.
STARTS = [0x600000000000 + (k << 40) for k in (0, 1, 2, 3, -1, -2, -3)]

INCLUDE = re.compile(r'^([ \t]*#[ \t]*include[ \t]*)(.*?)[ \t]*$', re.MULTILINE)

# One multiprocessor of an H200 (compute capability 9.0).
WARPS, BLOCKS, REGISTERS, SHARED, SHARED_OF_BLOCK = 64, 32, 65536, 228 << 10, 1 << 10

# Column, and the instructions that it counts.
CLASSES = [
    ("FFMA", ("FFMA",)), ("FADD+FMUL", ("FADD", "FMUL")), ("double", ("DADD", "DMUL", "DFMA", "DSETP", "DMNMX")),
    ("MUFU", ("MUFU",)), ("HMMA", ("HMMA",)), ("LDS", ("LDS", "LDSM")), ("STS", ("STS", "STSM")),
    ("LDG", ("LDG", "LD", "LDGSTS")), ("STG", ("STG", "ST")), ("LDL+STL", ("LDL", "STL")), ("LDC", ("LDC", "ULDC")),
    ("SHFL", ("SHFL",)), ("BAR", ("BAR", "WARPSYNC")), ("branch", ("BRA", "BRX", "CALL", "BSSY")),
]

# Cycles of a quarter of a multiprocessor (32 lanes of f32) for one instruction of a warp, besides the one in which it is
# issued: CUDA's programming guide, "Arithmetic Instructions", compute capability 9.0. HMMA is m16n8k16 in bf16.
INTEGER = ("IADD3", "IMAD", "LEA", "LOP3", "ISETP", "SHF", "SEL", "VIADD", "IMNMX", "VIMNMX", "FMNMX", "FSETP", "FSEL")
PIPES = [(("FFMA", "FADD", "FMUL"), 1), (INTEGER, 2), (("MUFU", "I2F", "F2I", "F2F", "I2FP"), 8), (("HMMA",), 4)]
# Those of a request to shared memory: 128 bytes a cycle for all quarters together.
WAVEFRONT = 4


class Failure(Exception):
    """Something that the user has to see, without a traceback."""
    code = 1


class OtherOrder(Failure):
    """PTX of the right sources whose text the compiler does not give on this system (see tools/nvrtc.py)."""
    code = 4


class NoTool(Failure):
    """NVIDIA's tools cannot be had here."""
    code = 3


# -- sources ----------------------------------------------------------------------------------------------------------

def variants(kernels):
    """(module, source, defines) of every line of variants.txt."""
    found = []
    for line in (kernels / "variants.txt").read_text().splitlines():
        words = line.split("#")[0].split()
        if words:
            found.append((words[0], words[1], words[2:]))
    return found


def include_of(name, rest):
    """Path in kernels/ of an include that file `name` asks for as `rest`."""
    quoted = re.fullmatch(r'"([^"]+)"', rest.split("//")[0].strip())
    if not quoted:
        raise Failure(f'kernels/{name}: #include {rest}: a kernel includes its own files alone, by name')
    return posixpath.normpath(posixpath.join(posixpath.dirname(name), quoted[1]))


def sources(kernels, source):
    """Path in kernels/ and bytes of the source and of everything that it includes, on whatever condition."""
    found, open_ = {}, [source]
    while open_:
        name = open_.pop()
        if name in found:
            continue
        path = kernels / name
        if not path.is_file():
            raise Failure(f"kernels/{name}: no such file")
        found[name] = path.read_bytes()
        open_ += [include_of(name, rest) for _, rest in INCLUDE.findall(found[name].decode())]
    return found


def header(files, defines):
    """First line of a PTX file: what it was made from."""
    digest = hashlib.sha256()
    flags = " ".join(OPTIONS + defines)
    digest.update(f"{COMPILER}; {flags}\n".encode())
    for name in sorted(files):
        digest.update(f"{name} {len(files[name])}\n".encode())
        digest.update(files[name])
    return f"// source-sha256: {digest.hexdigest()}; {COMPILER}; {flags}\n"


# -- tools ------------------------------------------------------------------------------------------------------------

def wheel(cache, pinned):
    """The folder of an installed wheel; pip checks its hash and keeps the execute bits."""
    package, version, sha256 = pinned
    folder = cache / f"{package}-{version}"
    if folder.is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with open(cache / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.is_dir():
            return folder
        with tempfile.TemporaryDirectory(dir=cache) as temporary:
            wanted = pathlib.Path(temporary, "requirements.txt")
            wanted.write_text(f"{package}=={version} --hash=sha256:{sha256}\n")
            done = subprocess.run(
                [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:",
                 "--require-hashes", "--disable-pip-version-check", "--target", f"{temporary}/wheel", "-r", wanted],
                capture_output=True, text=True)
            if done.returncode != 0:
                raise NoTool(f"pip cannot install {package}=={version}:\n{done.stderr.strip()}")
            os.rename(f"{temporary}/wheel", folder)
    return folder


def compile_text(args, source, files, defines, start):
    """(PTX, warnings) of a source. Files have their paths in kernels/ as names, so nothing depends on the machine."""
    def full(name):
        return INCLUDE.sub(lambda match: f'{match[1]}"{include_of(name, match[2])}"', files[name].decode())

    def plain_stack():
        # without a limit the system puts memory elsewhere
        resource.setrlimit(resource.RLIMIT_STACK, (8 << 20, resource.getrlimit(resource.RLIMIT_STACK)[1]))

    job = {"folder": str(wheel(args.cache, NVRTC).resolve() / "nvidia" / "cuda_nvrtc" / "lib"), "source": source, "start": start,
           "texts": {name: full(name) for name in files}, "options": OPTIONS + defines}
    script = pathlib.Path(__file__).resolve().with_name("nvrtc.py")
    environment = {name: value for name, value in os.environ.items() if name in ("PATH", "LD_LIBRARY_PATH")}
    # the compiler asks where it is, and the length of that moves everything too
    done = subprocess.run([sys.executable, script], input=json.dumps(job), capture_output=True, text=True, cwd="/",
                          env=environment, preexec_fn=plain_stack)
    if done.returncode != 0:
        raise Failure(f"tools/nvrtc.py: exit code {done.returncode}: {done.stderr.strip()}")
    result = json.loads(done.stdout)
    # the same paths as an editor shows
    log = re.sub(r"^(?=[\w/]+\.cuh?\()", "kernels/", result["log"].strip(), flags=re.MULTILINE)
    if result["code"] != 0:
        raise Failure(log or f"error {result['code']} of NVRTC")
    return result["ptx"], log


def without_unused(ptx):
    """The text without variables that nothing names: constants of headers, which the compiler writes out whole."""
    defined = re.compile(r"^\.(?:global|const)(?: \.align \d+)? \.\w+ ([\w$]+)[^;]*;\n", re.MULTILINE)
    while True:
        words = {}
        for word in re.findall(r"[\w$]+", ptx):
            words[word] = words.get(word, 0) + 1
        less = defined.sub(lambda found: found[0] if words[found[1]] > 1 else "", ptx)
        if less == ptx:
            return ptx
        ptx = less


def build(args, kernels, module, source, defines, start=STARTS[0]):
    """Text of a module's PTX file."""
    files = sources(kernels, source)
    try:
        ptx, warnings = compile_text(args, source, files, defines, start)
    except Failure as failure:
        raise Failure(f"{module}: {' '.join([source] + defines)} does not compile\n{failure}") from None
    if warnings:
        print(f"{module}:\n{warnings}", file=sys.stderr)
    ptx = without_unused(ptx)
    approximate = sorted(set(re.findall(r"\b[\w.]+\.(?:approx|ftz|full)\b[.\w]*", ptx)))
    if approximate:
        raise Failure(f"{module}: approximate instructions: {', '.join(approximate)}")
    return header(files, defines) + ptx


# -- commands ---------------------------------------------------------------------------------------------------------

def compile_all(args, kernels, modules):
    """Compiles, then writes, compares or forgets."""
    folder, failures, orders = kernels / "ptx", [], []
    folder.mkdir(exist_ok=True)
    wheel(args.cache, NVRTC)

    def compiled(line):
        module, source, defines = line
        path = folder / f"{module}.ptx"
        old = path.read_text() if path.is_file() else ""
        try:
            text = build(args, kernels, module, source, defines)
            for start in STARTS[1:] if args.check and old.startswith(text.split("\n")[0]) else []:
                if old == text:
                    break
                other = build(args, kernels, module, source, defines, start)
                text = other if other == old else text
        except Failure as failure:
            return module, path, old, failure
        return module, path, old, text

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(compiled, modules))
    for module, path, old, text in results:
        if isinstance(text, Failure):
            failures.append(str(text))
        elif args.check and old != text:
            lines = list(difflib.unified_diff(old.splitlines(), text.splitlines(), "committed", "compiled", n=0,
                                              lineterm=""))
            more = [f".. and {len(lines) - 12} more lines"] if len(lines) > 12 else []
            same_sources = old.split("\n")[0] == text.split("\n")[0]
            what = "comes out in another order on this system" if same_sources else "is stale: run tools/build_ptx.py"
            (orders if same_sources else failures).append(
                "\n".join([f"kernels/ptx/{module}.ptx {what}"] + lines[:12] + more))
        elif not args.check and not args.dry and old != text:
            path.write_text(text)
            print(f"kernels/ptx/{module}.ptx: {len(text):,} bytes")
    if not args.module:
        names = {f"{module}.ptx" for module, _, _ in modules}
        for path in sorted(folder.glob("*.ptx")):
            if path.name in names:
                continue
            if args.check:
                failures.append(f"kernels/ptx/{path.name}: no such module in kernels/variants.txt")
            elif not args.dry:
                path.unlink()
                print(f"kernels/ptx/{path.name}: removed")
    if failures:
        raise Failure("\n\n".join(failures + orders))
    if orders:
        raise OtherOrder("\n\n".join(orders))
    print(f"{len(modules)} modules: {'as committed' if args.check else 'compiled'}")


def assemble(args, ptx, arch, cubin):
    """{entry: numbers} from the assembler's report; leaves the machine code in `cubin`."""
    tool = wheel(args.cache, PTXAS) / "nvidia" / "cuda_nvcc" / "bin" / "ptxas"
    done = subprocess.run([tool, "-v", f"-arch={arch}", ptx, "-o", cubin], capture_output=True, text=True)
    if done.returncode != 0:
        raise Failure(f"{ptx.name} for {arch}:\n{done.stderr.strip()}")
    found, entry = {}, None
    for line in done.stderr.splitlines():
        if match := re.search(r"Compiling entry function '(\S+)'", line):
            entry = found[match[1]] = {"spill": 0, "stack": 0, "shared": 0, "constant": 0}
        elif match := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line):
            entry["stack"], entry["spill"] = int(match[1]), int(match[2]) + int(match[3])
        elif match := re.search(r"Used (\d+) registers", line):
            entry["registers"] = int(match[1])
            shared = re.search(r"(\d+) bytes smem", line)
            entry["shared"] = int(shared[1]) if shared else 0
    return found


def machine_code(args, cubin):
    """{entry: ([(opcode with its modifiers, label it may jump to)], {label: place})}."""
    tool = wheel(args.cache, NVDISASM) / "nvidia" / "cu13" / "bin" / "nvdisasm"
    text = subprocess.run([tool, "--print-code", cubin], capture_output=True, text=True, check=True).stdout
    found, code, labels = {}, None, None
    for line in text.splitlines():
        if match := re.match(r"\s*\.section\s+\.text\.([\w$]+)", line):
            code, labels = found.setdefault(match[1], ([], {}))
        elif code is None:
            continue
        elif match := re.match(r"(\.L_x_\d+):", line):
            labels[match[1]] = len(code)
        elif match := re.match(r"\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9]*[\w.]*)(.*)", line):
            to = re.search(r"\.L_x_\d+", match[2]) if match[1].startswith("BRA") else None
            code.append((match[1], to and to[0]))
    return found


def counted(code):
    """{opcode: count}."""
    found = {}
    for opcode, _ in code:
        name = opcode.split(".")[0]
        found[name] = found.get(name, 0) + 1
    return found


def hottest(code, labels):
    """The innermost loop with the most multiply-adds, as its instructions; nothing where they are not what it is about."""
    back = [(labels[to], at) for at, (_, to) in enumerate(code) if to in labels and labels[to] <= at]
    inner = [(a, b) for a, b in back if not any((c, d) != (a, b) and a <= c and d <= b for c, d in back)]
    # m16n8k16 has 64 times the multiply-adds of a warp's 32
    work = {loop: sum(64 * op.startswith("HMMA") + op.startswith("FFMA") for op, _ in code[loop[0]:loop[1] + 1])
            for loop in inner}
    best = max(inner, key=lambda loop: (work[loop], loop), default=None)
    return code[best[0]:best[1] + 1] if best and 4 * work[best] > best[1] - best[0] else []


def allowed(loop):
    """Share of the peak of its multiply-adds that a loop can reach: (at least, at most), by requests to shared memory.
    A request takes a cycle where lanes read the same words, and one for every word of a lane where they do not; one for
    matrix units takes those of all its words."""
    counts = counted(loop)
    pipes = [sum(counts.get(code, 0) for code in codes) * cycles for codes, cycles in PIPES]
    useful = 4 * counts["HMMA"] if "HMMA" in counts else counts.get("FFMA", 0)
    most = least = 0
    for opcode, _ in loop:
        if opcode.startswith(("LDS", "STS")):
            words = 4 if opcode.endswith(("128", "88.4")) else 2 if opcode.endswith(("64", "88.2")) else 1
            most += words
            least += words if opcode.startswith("LDSM") else 1
    floor = max(len(loop), *pipes)
    return useful / max(floor, WAVEFRONT * most), useful / max(floor, WAVEFRONT * least)


def occupancy(registers, threads, shared):
    """Share of a multiprocessor's warps that can be there at once."""
    warps = -(-threads // 32)
    of_warp = -(-registers * 32 // 256) * 256
    # registers belong to the four quarters of a multiprocessor, warps to one of them each
    by_registers = REGISTERS // 4 // of_warp * 4 // warps
    by_shared = SHARED // (-(-(shared + SHARED_OF_BLOCK) // 128) * 128)
    return min(WARPS // warps, BLOCKS, by_registers, by_shared) * warps / WARPS


def budgets(kernels):
    """{entry: (registers, spill bytes, dynamic shared bytes)}; `*` is meant for entries without a line."""
    found = {}
    for line in (kernels / "budgets.txt").read_text().splitlines():
        words = line.split("#")[0].split()
        if words:
            found[words[0]] = tuple(int(word) for word in words[1:]) + (0,) * (4 - len(words))
    return found


def measure(args, kernels, modules, codes=None):
    """Per entry: what the assembler says of the committed PTX; `codes`, if given, gets its sm_90 code."""
    limits = budgets(kernels)
    with tempfile.TemporaryDirectory() as temporary:
        cubin = pathlib.Path(temporary, "cubin")
        for module, _, _ in modules:
            ptx = kernels / "ptx" / f"{module}.ptx"
            if not ptx.is_file():
                raise Failure(f"kernels/ptx/{module}.ptx: no such file: run tools/build_ptx.py")
            threads = dict(re.findall(r"\.entry (\w+)\([^{]*?\.maxntid (\d+)", ptx.read_text()))
            older = assemble(args, ptx, "sm_80", cubin)
            newer = assemble(args, ptx, "sm_90", cubin)
            if codes is not None:
                codes.update(machine_code(args, cubin))
            for entry in newer:
                limit = limits.get(entry, limits["*"])
                yield module, entry, int(threads.get(entry, 0)), limit, older[entry], newer[entry]


def resources(args, kernels, modules):
    """A table of every entry."""
    names = [name for name, _ in CLASSES]
    rows = [["entry", "threads", "registers sm_80", "sm_90", "spills sm_80", "sm_90", "stack", "shared static", "dynamic",
             "occupancy", *names, "all"]]
    codes = {}
    for _, entry, threads, limit, older, newer in measure(args, kernels, modules, codes):
        share = occupancy(newer["registers"], threads, newer["shared"] + limit[2]) if threads else 0
        found = counted(codes[entry][0])
        counts = [sum(found.get(code, 0) for code in which) for _, which in CLASSES]
        rows.append([entry, threads, older["registers"], newer["registers"], older["spill"], newer["spill"],
                     newer["stack"], newer["shared"], limit[2], f"{share:.0%}", *counts, len(codes[entry][0])])
    table(rows)


def loops(args, kernels, modules):
    """A table of the hottest loop of every entry that has one."""
    names = ("FFMA", "HMMA", "LDS+STS", "integer", "others")
    rows, codes = [["entry", "warps of a quarter", "loop", *names, "of the peak, at least", "at most"]], {}
    for _, entry, threads, limit, _, newer in measure(args, kernels, modules, codes):
        if not (loop := hottest(*codes[entry])):
            continue
        counts = counted(loop)
        some = [sum(counts.get(code, 0) for code in which)
                for which in (("FFMA",), ("HMMA",), ("LDS", "LDSM", "STS", "STSM"), INTEGER)]
        warps = occupancy(newer["registers"], threads, newer["shared"] + limit[2]) * WARPS / 4 if threads else 0
        least, most = allowed(loop)
        rows.append([entry, f"{warps:.0f}", len(loop), *some, len(loop) - sum(some), f"{least:.0%}", f"{most:.0%}"])
    table(rows)


def table(rows):
    """Prints rows of cells, the first of them the head."""
    widths = [max(len(str(row[i])) for row in rows) for i in range(len(rows[0]))]
    rows.insert(1, [("-" * (width - (i > 0))) + (":" if i > 0 else "") for i, width in enumerate(widths)])
    for row in rows:
        cells = [str(x).rjust(w) if i else str(x).ljust(w) for i, (x, w) in enumerate(zip(row, widths))]
        print("| " + " | ".join(cells) + " |")


def gate(args, kernels, modules):
    """Fails where an entry takes more than it may."""
    failures, count = [], 0
    for module, entry, threads, limit, older, newer in measure(args, kernels, modules):
        count += 1
        if not threads:
            failures.append(f"{module}: {entry} has no __launch_bounds__")
        for arch, numbers in (("sm_80", older), ("sm_90", newer)):
            for what, key, most in (("registers", "registers", limit[0]), ("bytes of spills", "spill", limit[1])):
                if numbers[key] > most:
                    failures.append(f"{module}: {entry} on {arch}: {numbers[key]} {what}, "
                                    f"kernels/budgets.txt allows {most}")
    if failures:
        raise Failure("\n".join(failures))
    print(f"{count} entries within kernels/budgets.txt")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--module", nargs="+", help="only these modules of kernels/variants.txt")
    parser.add_argument("--dry", action="store_true", help="compile, write nothing")
    parser.add_argument("--check", action="store_true", help="compare with the committed PTX")
    parser.add_argument("--resources", action="store_true", help="table of registers, spills, occupancy, instructions")
    parser.add_argument("--loops", action="store_true", help="table of the hottest loops")
    parser.add_argument("--gate", action="store_true", help="compare with kernels/budgets.txt")
    parser.add_argument("--root", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parent.parent)
    parser.add_argument("--cache", type=pathlib.Path, default=pathlib.Path.home() / ".cache" / "slm-fast-nvrtc")
    args = parser.parse_args()
    kernels = args.root / "kernels"
    try:
        modules = variants(kernels)
        if args.module:
            unknown = set(args.module) - {module for module, _, _ in modules}
            if unknown:
                raise Failure(f"kernels/variants.txt has no module {', '.join(sorted(unknown))}")
            modules = [line for line in modules if line[0] in args.module]
        if args.resources or args.loops or args.gate:
            if args.resources:
                resources(args, kernels, modules)
            if args.loops:
                loops(args, kernels, modules)
            if args.gate:
                gate(args, kernels, modules)
        else:
            compile_all(args, kernels, modules)
    except Failure as failure:
        print(f"build_ptx: {failure}", file=sys.stderr)
        sys.exit(failure.code)


if __name__ == "__main__":
    main()
