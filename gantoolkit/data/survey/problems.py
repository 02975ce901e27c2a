"""The problems of a data set that its survey shows, and how its files are read."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from gantoolkit.data.survey.halves import are_single_images
from gantoolkit.data.survey.pair_sizes import describe_unequal_pairs, find_unequal_pairs
from gantoolkit.data.survey.reading import DomainSurvey, OutsideValues, Survey
from gantoolkit.data.survey.sheet import describe_sizes
from gantoolkit.errors import count_of

__all__ = ["Problem", "find_notes", "find_problems"]

_MAX_ASPECT_RATIO = 1.5
_MAX_ASPECT_RATIO_OF_HALVES = 3.0
_MIN_SIDE = 32
_MAX_REASONS = 5
_NUMBERS = re.compile(r"-?\d+(\.\d+)?")


@dataclass(frozen=True)
class Problem:
    """A problem of a data set. A serious one prevents training or makes its result worthless."""

    text: str
    serious: bool = False


def find_problems(data: Survey) -> list[Problem]:
    """List the problems of a data set, serious ones first."""
    problems: list[Problem] = []
    for name, domain in data.domains.items():
        problems += _find_unreadable(name, domain)
        problems += _find_odd_images(name, domain)
        problems += _find_odd_sizes(name, domain, data)
        problems += map(Problem, domain.notes.sentences(passed_over_only=True))
        problems += _find_label_maps(name, domain, data)
    problems += _find_odd_halves(data)
    problems += _compare(data, "trainA", "trainB", "so the domains overlap", serious=True)
    for domain_name in "AB":
        first, second = f"train{domain_name}", f"test{domain_name}"
        problems += _compare(data, first, second, "so test scores are too good", serious=False)
    problems += map(Problem, data.passed_over)
    problems += map(Problem, describe_unequal_pairs(data))
    if data.pairing == "paired" and data.pairing_problem:
        problems.append(Problem(f"the recipe learns from pairs: {data.pairing_problem}", serious=True))
    unique = dict.fromkeys(problems)  # both halves of a picture have the notes of its file
    return sorted(unique, key=lambda problem: not problem.serious)


def find_notes(data: Survey) -> list[str]:
    """Sentences about how the files are read, which are not problems."""
    notes: list[str] = []
    for split in ("train", "test"):
        domain = data.domains.get(f"{split}A")
        if domain and domain.files[0].half and domain.sizes:
            sizes = describe_sizes(_picture_sizes(domain))
            pictures = f"{count_of(len(domain.files), 'picture')} of {sizes}"
            verb = "is" if len(domain.files) == 1 else "are"
            notes.append(f"{split}: {pictures} {verb} cut in half: the left half is A, the right half B")
    for domain in data.domains.values():
        problems = domain.notes.sentences(passed_over_only=True)
        notes += [sentence for sentence in domain.notes.sentences() if sentence not in problems]
    return list(dict.fromkeys([*notes, *data.notes]))


def _find_unreadable(name: str, domain: DomainSurvey) -> Iterator[Problem]:
    total = len(domain.files)
    kinds: dict[str, dict[str, str]] = {}
    for path, reason in domain.bad.items():
        if path not in domain.outside:
            kinds.setdefault(_NUMBERS.sub("", reason), {})[path] = reason
    ordered = sorted(kinds.values(), key=len, reverse=True)
    for damaged in ordered[:_MAX_REASONS]:
        path, reason = next(iter(damaged.items()))
        yield Problem(
            f"{name}: {len(damaged)} of {total} files cannot be read; the first, {path}, {reason}",
            serious=len(domain.bad) == total,
        )
    if others := [path for damaged in ordered[_MAX_REASONS:] for path in damaged]:
        yield Problem(
            f"{name}: {count_of(len(others), 'other file')} cannot be read, for other reasons; the first is {others[0]}",
            serious=len(domain.bad) == total,
        )
    if domain.outside:
        yield Problem(_describe_outside(name, domain), serious=len(domain.bad) == total)


def _describe_outside(name: str, domain: DomainSurvey) -> str:
    """How far files leave the range, and the settings that read them."""
    encoding, values = domain.encoding, list(domain.outside.values())
    low, high = min(value.low for value in values), max(value.high for value in values)
    problems = [f"values from {low:g} to {high:g}"] if low < encoding.low or high > encoding.high else []
    problems += ["NaN"] if any(value.has_nan for value in values) else []
    advice = _suggest_settings(values, name[-1])
    return (
        f"{name}: {len(values)} of {len(domain.files)} files have {' and '.join(problems)}, outside of the range "
        f"{encoding.low:g} to {encoding.high:g}, such as {next(iter(domain.outside))}; set {advice}"
    )


def _suggest_settings(values: list[OutsideValues], domain: str) -> str:
    """The settings that read all of these values; alternatives only where each of them suffices."""
    repeated = [value.repeated for value in values if value.repeated is not None]
    clip = f"data.clip_{domain} = true, which moves values to the nearest end, or a wider data.range_{domain}"
    if any(value.has_nan for value in values):  # NaN is not clipped, and a domain has one value of pixels without data
        nodata = f'data.nodata_{domain} = "nan"'
        return f"{nodata}, and {clip}" if repeated or any(value.others_outside for value in values) else nodata
    if not repeated:
        return clip
    common = max(set(repeated), key=repeated.count)
    suffices = all(value.repeated == common and not value.others_outside for value in values)
    nodata = f"data.nodata_{domain} = {common!r} if that means no data"
    return f"{nodata}; or {clip}" if suffices else f"{nodata}, and for the other values {clip}"


def _find_odd_images(name: str, domain: DomainSurvey) -> Iterator[Problem]:
    if domain.flat:
        verb = "shows" if len(domain.flat) == 1 else "show"
        yield Problem(
            f"{name}: {count_of(len(domain.flat), 'image')} {verb} a single color; the first: {domain.flat[0]}"
        )
    duplicates = [files for files in domain.checksums.values() if len(files) > 1]
    if duplicates:
        first, second = duplicates[0][:2]
        images = _images_have(len(duplicates))
        yield Problem(f"{name}: {images} duplicates; {first} and {second} are identical")
    if 0 < domain.gray < len(domain.sizes):
        verb = "is" if domain.gray == 1 else "are"
        yield Problem(f"{name}: {domain.gray} of {len(domain.sizes)} images {verb} gray")


def _images_have(number: int) -> str:
    return f"{count_of(number, 'image')} {'has' if number == 1 else 'have'}"


def _find_odd_sizes(name: str, domain: DomainSurvey, data: Survey) -> Iterator[Problem]:
    sizes = domain.sizes.values()
    small = [size for size in sizes if min(size) < _MIN_SIDE]
    if small:
        verb = "is" if len(small) == 1 else "are"
        example = f"such as {small[0][0]}×{small[0][1]}"
        yield Problem(f"{name}: {count_of(len(small), 'image')} {verb} smaller than {_MIN_SIDE} pixels, {example}")
    long = [size for size in sizes if max(size) > _MAX_ASPECT_RATIO * min(size)]
    if long and data.settings.resize == "square":
        advice = '; data.resize = "shorter_side" keeps their aspect ratio'
        if any(find_unequal_pairs(data, split, "shorter_side") for split in data.pairs):
            advice = ""  # the windows of unequal images would not show the same place
        yield Problem(
            f"{name}: {_images_have(len(long))} an aspect ratio above {_MAX_ASPECT_RATIO}, such as {long[0][0]}×{long[0][1]}, "
            f"and would be squeezed to a square{advice}"
        )


def _find_label_maps(name: str, domain: DomainSurvey, data: Survey) -> Iterator[Problem]:
    mixes = domain.encoding.resample == "bicubic" and data.settings.resize != "none"
    if mixes and domain.colors.images and domain.colors.is_label_map:
        yield Problem(
            f"{name}: its images have {len(domain.colors.colors)} colors in large areas, like label maps, and would be resized "
            f'bicubically, which mixes colors; data.resample_{name[-1]} = "nearest" keeps them'
        )


def _find_odd_halves(data: Survey) -> Iterator[Problem]:
    for split in ("train", "test"):
        domain = data.domains.get(f"{split}A")
        if domain is None or not domain.files[0].half:
            continue
        layout = f"single images belong in {split}A and {split}B, or {split}/A and {split}/B"
        odd = [
            (width, height)
            for width, height in _picture_sizes(domain)
            if width <= height or width > 2 * _MAX_ASPECT_RATIO_OF_HALVES * height
        ]
        if odd:
            example, noun = f"such as {odd[0][0]}×{odd[0][1]}", "size" if len(odd) == 1 else "sizes"
            yield Problem(
                f"{split}: {count_of(len(odd), 'picture')} of unusual {noun} would be cut in half, {example}; {layout}"
            )
        elif are_single_images([file for file in domain.files if file in domain.sizes], domain.encoding):
            yield Problem(
                f"{split}: its pictures continue across their middle, where they would be cut in half; {layout}"
            )


def _picture_sizes(domain: DomainSurvey) -> list[tuple[int, int]]:
    """The sizes of whole pictures that are cut in half."""
    return [(2 * width, height) for width, height in domain.sizes.values()]


def _compare(data: Survey, name: str, other_name: str, consequence: str, *, serious: bool) -> Iterator[Problem]:
    domain, other = data.domains.get(name), data.domains.get(other_name)
    if domain is None or other is None:
        return
    shared = domain.checksums.keys() & other.checksums.keys()
    if shared:
        first = min(shared, key=lambda digest: domain.checksums[digest][0])
        example = f"{domain.checksums[first][0]} and {other.checksums[first][0]} are identical"
        verb = "is" if len(shared) == 1 else "are"
        yield Problem(
            f"{count_of(len(shared), 'image')} {verb} in {name} and in {other_name}, {consequence}; {example}",
            serious=serious and len(shared) * 2 > min(len(domain.files), len(other.files)),
        )
