"""Parts of deploy/package.sh: the list of what a package carries (SPDX 2.3), the licences of that, and the wheel.

  package_files.py sbom --version=V --libraries=FILE --root=DIR --prefix=/usr    FILE has lines NAME PATH: the bundled libraries
  package_files.py wheel --version=V --root=DIR --out=DIR                        DIR is the installed tree"""

import argparse
import base64
import datetime
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import zipfile

PYTHON = pathlib.Path(__file__).resolve().parent / "wheel"


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def debian_packages(paths):
    """path -> (name, version) of the package that a file of the build machine comes from."""
    # dpkg knows a file by the path it was packed with, with or without /usr.
    known = {form: path for path in paths for form in (path, path.removeprefix("/usr"))}
    found = subprocess.run(["dpkg-query", "-S", *known], capture_output=True, text=True).stdout
    names = {known[file]: owner.split(":")[0] for owner, _, file in (line.partition(": ") for line in found.splitlines())}
    missing = [path for path in paths if path not in names]
    if missing:
        raise SystemExit(f"package: no Debian package holds {missing[0]}: where does it come from?")
    asked = subprocess.run(["dpkg-query", "-W", "-f", "${Package} ${source:Version}\n", *sorted(set(names.values()))],
                           capture_output=True, text=True, check=True).stdout
    versions = dict(line.split() for line in asked.splitlines())
    return {path: (name, versions[name]) for path, name in names.items()}


def sbom(arguments):
    tree = pathlib.Path(arguments.root + arguments.prefix)
    licences = tree / "share/doc/sluice/licences"
    licences.mkdir(parents=True, exist_ok=True)
    libraries = [line.split() for line in pathlib.Path(arguments.libraries).read_text().splitlines()]
    packages, files, relations = {}, [], []

    def add_package(name, version, licence, origin):
        packages[name] = {"SPDXID": f"SPDXRef-Package-{name}", "name": name, "versionInfo": version, "downloadLocation": origin,
                          "filesAnalyzed": False, "licenseConcluded": "NOASSERTION", "licenseDeclared": licence,
                          "copyrightText": "NOASSERTION"}

    def add_file(path, package):
        identity = f"SPDXRef-File-{len(files)}"
        files.append({"SPDXID": identity, "fileName": f"./{path.relative_to(arguments.root)}", "licenseConcluded": "NOASSERTION",
                      "copyrightText": "NOASSERTION", "checksums": [{"algorithm": "SHA256", "checksumValue": sha256(path)}]})
        relations.append({"spdxElementId": f"SPDXRef-Package-{package}", "relationshipType": "CONTAINS",
                          "relatedSpdxElement": identity})

    add_package("sluice", arguments.version, "NOASSERTION", "NOASSERTION")
    for name in ("bin/sluiced", "bin/sluice", "share/sluice/models/classics-12m/model.safetensors"):
        add_file(tree / name, "sluice")
    owners = debian_packages([origin for _, origin in libraries])
    for name, origin in libraries:
        package, version = owners[origin]
        if package not in packages:
            add_package(package, version, "NOASSERTION", f"https://packages.debian.org/{package}")
            shutil.copy(f"/usr/share/doc/{package}/copyright", licences / package)
            relations.append({"spdxElementId": "SPDXRef-Package-sluice", "relationshipType": "DEPENDS_ON",
                              "relatedSpdxElement": f"SPDXRef-Package-{package}"})
        add_file(tree / "lib/sluice" / name, package)
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH", datetime.datetime.now().timestamp()))
    created = datetime.datetime.fromtimestamp(epoch, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    document = {"spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT", "name": f"sluice-{arguments.version}",
                "documentNamespace": f"https://spdx.org/spdxdocs/sluice-{arguments.version}-{sha256(tree / 'bin/sluiced')[:16]}",
                "creationInfo": {"created": created, "creators": ["Tool: deploy/package.sh"]},
                "documentDescribes": ["SPDXRef-Package-sluice"], "packages": list(packages.values()), "files": files,
                "relationships": relations}
    (tree / "share/doc/sluice/sluice.spdx.json").write_text(json.dumps(document, indent=1) + "\n")


METADATA = """Metadata-Version: 2.1
Name: sluice-server
Version: {version}
Summary: The daemon of Sluice and its command line, with a small model: a server of language models with linear attention
Requires-Python: >=3.9
Provides-Extra: cuda
Requires-Dist: nvidia-cublas>=13,<14; extra == "cuda"
Description-Content-Type: text/markdown

{description}"""
WHEEL = """Wheel-Version: 1.0
Generator: deploy/package.sh
Root-Is-Purelib: false
Tag: {tag}
"""
ENTRY_POINTS = """[console_scripts]
sluiced = sluice_server:run_sluiced
sluice = sluice_server:run_sluice
"""
TAG = "py3-none-manylinux_2_36_x86_64"


def wheel(arguments):
    root, out = pathlib.Path(arguments.root), pathlib.Path(arguments.out)
    info = f"sluice_server-{arguments.version}.dist-info"
    record = []
    with zipfile.ZipFile(out / f"sluice_server-{arguments.version}-{TAG}.whl", "w", zipfile.ZIP_DEFLATED) as archive:
        def add(name, data, mode=0o644):
            entry = zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (0o100000 | mode) << 16
            archive.writestr(entry, data)
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            record.append(f"{name},sha256={digest},{len(data)}")

        for path in sorted((PYTHON / "sluice_server").glob("*.py")):
            add(f"sluice_server/{path.name}", path.read_bytes())
        for path in sorted(root.rglob("*")):
            place = path.relative_to(root).as_posix()
            # A wheel installs no unit, and its binaries find model and libraries beside themselves.
            if path.is_file() and place.split("/")[0] in ("bin", "lib", "share") and not place.startswith("lib/systemd"):
                add(f"sluice_server/dist/{place}", path.read_bytes(), 0o755 if place.startswith("bin/") else 0o644)
        description = (PYTHON / "README.md").read_text()
        add(f"{info}/METADATA", METADATA.format(version=arguments.version, description=description).encode())
        add(f"{info}/WHEEL", WHEEL.format(tag=TAG).encode())
        add(f"{info}/entry_points.txt", ENTRY_POINTS.encode())
        record.append(f"{info}/RECORD,,")
        archive.writestr(f"{info}/RECORD", "\n".join(record) + "\n")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["sbom", "wheel"])
    for flag in ("--version", "--libraries", "--root", "--prefix", "--out"):
        parser.add_argument(flag, default="")
    arguments = parser.parse_args()
    {"sbom": sbom, "wheel": wheel}[arguments.what](arguments)


if __name__ == "__main__":
    main()
