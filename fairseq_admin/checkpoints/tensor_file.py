"""torch.load with what it leaves out: the sizes and checksums of a file's records.

torch reads or maps as many bytes of a record as its tensor has, into the next record if need be,
and compares no checksum; a mapped file that is rewritten meanwhile ends the process by a signal.
"""

import os
import pickle
import sys
import zipfile
from typing import Any, Dict, List, Set

import torch
from torch import Tensor, UntypedStorage

from fairseq_admin import weights_only  # noqa: F401  allow-lists what such files hold

CHUNK = 1 << 20  # bytes read at once


class Inert:
    """Stands for whatever a pickle names, does nothing, and takes everything."""

    def __init__(self, *_: Any) -> None:
        pass

    __setstate__ = __setitem__ = append = extend = __init__


class Keys(pickle._Unpickler):
    """Finds the records that the pickle of a file names: `keys`, in the order in which torch asks
    for them. (Python's own unpickler: a memo of any size costs it nothing.)"""

    def find_class(self, module: str, name: str) -> type:
        return Inert

    def persistent_load(self, pid: Any) -> Inert:
        _, _, key, _, numel = pid
        if numel:
            self.keys[key] = None
        return Inert()


def load(path: str, unread: str) -> Dict[str, Any]:
    """What the file *path* of torch.save holds, on the CPU, but for its entry *unread*, whose
    tensors are not read and take no memory. Nothing in the file is executed. A damaged file raises
    whatever torch stumbles over."""
    if not zipfile.is_zipfile(path):  # of the time before torch 1.6; it has no checksums
        state = torch.load(path, map_location="cpu", weights_only=True)
        taken(state, unread)
        return state
    storages: List[UntypedStorage] = []

    def empty(mapped: UntypedStorage, _: str) -> UntypedStorage:
        """Memory of the same size, in place of the file's, which is never touched."""
        storage = UntypedStorage(mapped.nbytes())
        if storage.nbytes():
            storages.append(storage)
        return storage

    with zipfile.ZipFile(path) as archive:
        opened = os.fstat(archive.fp.fileno())
        check_records(archive, opened.st_size)
        state = torch.load(path, map_location=empty, weights_only=True, mmap=True)
        if not os.path.samestat(opened, os.stat(path)):
            raise ValueError("another file took its place")
        unused = addresses(taken(state, unread))
        fill(archive, storages, unused - addresses(state))
    return state


def taken(state: Any, entry: str) -> Any:
    """The *entry* of *state*, which is then without it; None where it has none."""
    return state.pop(entry, None) if isinstance(state, dict) else None


def addresses(value: Any) -> Set[int]:
    """Where the memory of each tensor in nested containers begins."""
    if isinstance(value, Tensor):
        return {value.untyped_storage().data_ptr()}
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        return set()
    return set().union(*map(addresses, value))


def check_records(archive: zipfile.ZipFile, size: int) -> None:
    """Raise ValueError where *archive*, a file of *size* bytes, is none that torch.save writes: a
    compressed record could take any memory."""
    for info in archive.infolist():
        stored = info.compress_type == zipfile.ZIP_STORED and info.compress_size == info.file_size
        if not stored or info.header_offset + info.file_size > size:
            raise ValueError(f"record {info.filename} is compressed or longer than the file")


def fill(archive: zipfile.ZipFile, storages: List[UntypedStorage], unread: set) -> None:
    """Read the records of *archive* into *storages*, which are in the order of its pickle, but for
    those at the addresses *unread*. Raises ValueError for a record of another size than its
    storage, zipfile.BadZipFile for one of another checksum."""
    records = {info.filename.partition("/")[2]: info for info in archive.infolist()}
    if "byteorder" in records and archive.read(records["byteorder"]) != sys.byteorder.encode():
        raise ValueError("another byte order")
    with archive.open(records["data.pkl"]) as pickled:
        unpickler = Keys(pickled)
        unpickler.keys = {}
        unpickler.load()
    if len(unpickler.keys) != len(storages):
        raise ValueError("other tensors than records")
    for key, storage in zip(unpickler.keys, storages):
        record = records[f"data/{key}"]
        if record.file_size != storage.nbytes():
            raise ValueError(f"record {key} has another size than its tensor")
        if storage.data_ptr() in unread:
            continue
        buffer = memoryview(torch.empty(0, dtype=torch.uint8).set_(storage).numpy())
        with archive.open(record) as content:
            for start in range(0, len(buffer), CHUNK):
                part = buffer[start : start + CHUNK]
                if content.readinto(part) != len(part):
                    raise ValueError(f"record {key} ends early")
