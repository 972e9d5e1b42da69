"""What common wikitext templates say in plain text.

Only templates whose output can be told from their arguments are here; the others are left to the wiki itself
(``action=expandtemplates``). The names are those of the English Wikipedia, which many wikis share.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from tools.wikipedia.prose import latex, superscript

Arguments = tuple[Sequence[str], Mapping[str, str]]
"""Positional arguments and named ones, each already plain text."""

_SILENT = re.compile(
    r"""(?x)^(?:
    cite\ .* | citation.* | cite | sfn.* | sfnp | harv.* | efn.* | refn | r | rp | ref | ref\ .* | note | note\ .* |
    fn | fnb | ent | notelist.* | reflist.* | refbegin | refend | references | fact | cn | citeneeded | dubious.*
    | clarify.* | vague | who | whom | which | when | where | why | by\ whom | according\ to\ whom | page\ needed | pn
    | full | full\ citation.* | verify.* | better\ source.* | unreliable.* | failed\ verification | not\ in\ citation.*
    | relevance.* | original\ research.* | or | weasel.* | peacock.* | pov.* | npov.* | specify | disputed.* |
    contradict.* | update.* | needs\ update | dead\ link | wayback | webarchive | cbignore | isbn | issn | oclc |
    doi | pmid | arxiv | bibcode | jstor | lccn | url | official.* | imdb.* | gutenberg.* | infobox.* | .*\ infobox
    | taxobox.* | automatic\ taxobox | speciesbox | chembox.* | drugbox | elementbox.* | geobox.* | navbox.* |
    sidebar.* | .*\ sidebar | succession.* | s-\w+ | start\ box | end\ box | .*\ box | authority\ control.* | portal.*
    | commons.* | wikiquote.* | wikibooks.* | wikisource.* | wiktionary.* | wikinews.* | wikispecies.* |
    wikiversity.* | wikivoyage.* | wikitravel | sister.* | library\ resources.* | spoken\ wikipedia.* |
    featured\ article | good\ article | link\ fa | link\ ga | pp-.* | pp | protected | sprotected | semiprotected |
    use\ .* | engvar.* | short\ description | short\ desc | display\ ?title:?.* | italic\ title | lowercase.* |
    defaultsort:?.* | coord.* | coor\ .* | main | main\ articles? | main_article | mainarticle | see | see\ also |
    seealso | further.* | details | see\ details | about.* | for | for2 | distinguish.* | other.* | otheruses.* |
    two\ other\ uses | alternateuses | redirect.* | hatnote.* | dablink | rellink | selfref | not\ to\ be\ confused.* |
    .*-stub | .*\ stub | stub | sectstub | sect-stub | unreferenced.* | unsourced | refimprove.* | more\ citations.*
    | primary\ sources | cleanup.* | expand.* | merge.* | split.* | tone | technical.* | lead\ .* | multiple\ issues
    | ambox | empty\ section | no\ footnotes | more\ footnotes.* | image.* | multiple\ image | wide\ image |
    css\ image.* | gallery | annotated.* | listen | multi-.* | audio.* | quote\ box | quotebox | side\ box | clear.*
    | - | break | br | toc.* | compact\ ?toc.* | anchor.* | div\ col.* | div\ end | col-.* | col\ .* | colbegin |
    colend | columns.* | end.* | flagicon.* | .*\ icon | legend.* | bartable | bar\ .* | pie.* | chart.* |
    location\ map.* | ipac-.* | respell | pronunciation | pron.* | audio-ipa | usurped | sic | okina | 0 | void | zwj
    | zwsp | shy | notetag | inflation[- ]fn | increase | decrease | steady | increaseneutral | tlx? | category.*
    | templatestyles.* | italics?\ correction | linktext\ note | wikidata.* | navboxes.* | subject\ bar | portal\ bar
    | interwiki | 1911.*
    )$"""
)
"""Templates that add nothing to the prose: sources, notices, boxes, hatnotes, pronunciations."""

_DISAMBIGUATION = re.compile(
    r"(?i)\{\{\s*(?:dab|disambig(?:uation)?(?:[ _-]?(?:page|cleanup))?|disamb|hndis|geodis|numberdis|schooldis|roaddis|"
    r"hospitaldis|mathdab|human name disambiguation|place name disambiguation|[a-z0-9]+disambig|[234][lc][ac]c?|"
    r"begriffsklärung|homonymie|desambiguación|disambigua)\s*[|}]"
)

_PUNCTUATION = {
    "ndash": "–", "mdash": "—", "snd": " – ", "spnd": " – ", "spaced ndash": " – ", "en dash": "–",
    "em dash": "—", "emdash": "—", "endash": "–", "nbsp": " ", "spaces": " ", "space": " ", "thinsp": " ", "hsp": " ",
    "!": "|", "=": "=", "'": "'", "' \"": "' \"", "'s": "'s", "\" '": "\" '", "→": "→", "·": " · ", "dot": " · ",
    "middot": "·", "•": " • ", "bull": " • ", "bullet": " • ", "...": "...", "ellipsis": "...", "pi": "π", "sp": " ",
    "times": "×", "minus": "−", "plusmn": "±", "±": "±", "deg": "°", "prime": "′", "c.": "c.", "(": "{{", ")": "}}",
    "!(": "[", ")!": "]", "!!": "||", "clade": "", "ad": "AD", "bc": "BC", "ce": "CE", "bce": "BCE", "no.": "No.",
}  # fmt: skip

_LANGUAGES = {
    "ar": "Arabic", "cs": "Czech", "de": "German", "el": "Greek", "grc": "Ancient Greek", "gr": "Greek",
    "es": "Spanish",
    "fa": "Persian", "fi": "Finnish", "fr": "French", "ga": "Irish", "he": "Hebrew", "hi": "Hindi", "hu": "Hungarian",
    "it": "Italian", "ja": "Japanese", "ko": "Korean", "la": "Latin", "nl": "Dutch", "no": "Norwegian", "pl": "Polish",
    "pt": "Portuguese", "ro": "Romanian", "ru": "Russian", "sa": "Sanskrit", "sq": "Albanian", "sr": "Serbian",
    "sv": "Swedish", "tr": "Turkish", "uk": "Ukrainian", "vi": "Vietnamese", "zh": "Chinese", "cy": "Welsh",
    "da": "Danish", "bg": "Bulgarian", "hr": "Croatian", "ca": "Catalan", "ang": "Old English", "fro": "Old French",
}  # fmt: skip
_MONTHS = (
    "", "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
_UNITS = {
    "sqmi": "square miles", "sqkm": "km²", "km2": "km²", "m2": "m²", "sqft": "square feet", "ft2": "square feet",
    "m3": "m³", "km3": "km³", "cuft": "cubic feet", "cumi": "cubic miles", "mi": "miles", "ft": "feet", "in": "inches",
    "yd": "yards", "lb": "pounds", "oz": "ounces", "acre": "acres", "ha": "hectares", "C": "°C", "F": "°F",
    "mph": "mph",
    "km/h": "km/h", "m/s": "m/s", "C-change": "°C", "F-change": "°F", "LT": "long tons", "ST": "short tons",
    "t": "tonnes", "e6km": "million km", "e6mi": "million miles", "/sqmi": "per square mile", "/km2": "per km²",
    "PD/sqmi": "per square mile", "PD/km2": "per km²", "mi2": "square miles", "kg/m3": "kg/m³", "g/cm3": "g/cm³",
}  # fmt: skip
_SINGULAR = {"feet": "foot", "inches": "inch", "miles": "mile", "yards": "yard", "pounds": "pound", "acres": "acre"}
_RANGES = {
    "-": "–", "–": "–", "to": " to ", "and": " and ", "or": " or ", "by": " by ", "x": " × ", "×": " × ", "+/-": " ± ",
    "to(-)": " to ", "and(-)": " and ", "xx": " × ", "*": " × ", "±": " ± ",
}  # fmt: skip


def canonical_name(name: str) -> str:
    """The name of a template as the tables here write it."""
    bare = " ".join(name.replace("_", " ").split()).lower()
    return bare.removeprefix("template:").removeprefix("subst:").removeprefix("safesubst:").strip()


def is_silent(name: str) -> bool:
    """Whether the template adds nothing to the prose."""
    return _SILENT.match(name) is not None


def marks_disambiguation(wikitext: str) -> bool:
    """Whether the wikitext calls a template that marks disambiguation pages."""
    return _DISAMBIGUATION.search(wikitext) is not None


def spoken(name: str, arguments: Arguments, page_title: str = "") -> str | None:
    """What the template says; ``None`` when that cannot be told from its arguments.

    Args:
        name: The template's ``canonical_name``.
        arguments: Its arguments as plain text.
        page_title: The page that calls it, for ``{{PAGENAME}}``.
    """
    if name in _PUNCTUATION:
        return _PUNCTUATION[name]
    if name in ("pagename", "fullpagename", "basepagename", "subjectpagename"):
        return page_title
    positional, named = arguments
    if rule := _RULES.get(name):
        return rule(positional, named)
    if name.startswith(("lang-", "langx")) or name in ("lang", "langue"):
        return _language(name, positional, named)
    if head := re.match(r"(lc|uc|lcfirst|ucfirst|formatnum):(.*)", name):
        return {"uc": str.upper, "ucfirst": str.capitalize}.get(head[1], str)(head[2])
    return None


def _first(positional: Sequence[str], named: Mapping[str, str]) -> str:
    return _at(positional, named, 0)


def _last(positional: Sequence[str], named: Mapping[str, str]) -> str:
    return positional[-1] if positional else ""


def _at(positional: Sequence[str], named: Mapping[str, str], index: int) -> str:
    return positional[index] if index < len(positional) else named.get(str(index + 1), "")


def _language(name: str, positional: Sequence[str], named: Mapping[str, str]) -> str:
    if name in ("lang", "langue"):
        return _at(positional, named, 1)
    code = positional[0] if name == "langx" and positional else name.partition("-")[2]
    text = _at(positional, named, 1 if name == "langx" else 0)
    language = _LANGUAGES.get(code.strip())
    return f"{language}: {text}" if language and named.get("label") != "none" else text


def _quote(positional: Sequence[str], named: Mapping[str, str]) -> str:
    text = named.get("text") or named.get("quote") or _first(positional, named)
    return f"\n\n{text}\n\n"


def _list(positional: Sequence[str], named: Mapping[str, str]) -> str:
    items = [re.sub(r"^[*#]+\s*", "", line) for item in positional for line in item.split("\n")]
    return ", ".join(item.strip() for item in items if item.strip())


def _fraction(positional: Sequence[str], named: Mapping[str, str]) -> str:
    match [part.strip() for part in positional if part.strip()]:
        case [whole, over, under]:
            return f"{whole} {over}/{under}"
        case [over, under]:
            return f"{over}/{under}"
        case [under]:
            return f"1/{under}"
    return ""


def _convert(positional: Sequence[str], named: Mapping[str, str]) -> str:
    """The measure as the source gives it; the converted one in brackets is left out."""
    parts = [part.strip() for part in positional]
    text = ""
    while parts:
        text += parts.pop(0)
        if parts and parts[0] in _RANGES:
            text += _RANGES[parts.pop(0)]
            continue
        break
    if not parts:
        return text
    unit = _UNITS.get(parts[0], parts[0])
    if named.get("adj", "").startswith(("on", "mid")):  # «a 5-mile-wide crater»
        return f"{text}-{_SINGULAR.get(unit, unit)}{_adjective(named['adj'], positional)}"
    return f"{text} {unit}"


def _adjective(kind: str, positional: Sequence[str]) -> str:
    """``adj=mid|-wide``: the word that follows the unit."""
    return positional[-1].strip() if kind == "mid" and positional[-1].strip().startswith("-") else ""


def _ipa(positional: Sequence[str], named: Mapping[str, str]) -> str:
    """A pronunciation: the first argument that is no language code."""
    spelt = [part for part in positional if part and not re.fullmatch(r"[a-z]{2,3}(?:-[A-Za-z]+)*", part)]
    return spelt[0] if spelt else _last(positional, named)


def _value(positional: Sequence[str], named: Mapping[str, str]) -> str:
    number = _first(positional, named)
    if error := _at(positional, named, 1):
        number += f" ± {error}"
    if power := named.get("e"):
        number += f"×10{superscript(power)}"
    unit = named.get("u") or named.get("ul") or ""
    return f"{number} {unit}".strip() + (f"/{named['up']}" if named.get("up") else "")


def _date(positional: Sequence[str], named: Mapping[str, str]) -> str:
    numbers = [part.strip() for part in positional if part.strip()][:3]
    if not all(part.isdigit() for part in numbers):
        return numbers[0] if numbers else ""
    if len(numbers) >= 2 and 1 <= int(numbers[1]) <= 12:
        month = _MONTHS[int(numbers[1])]
        return f"{int(numbers[2])} {month} {numbers[0]}" if len(numbers) == 3 else f"{month} {numbers[0]}"
    return numbers[0] if numbers else ""


def _as_of(positional: Sequence[str], named: Mapping[str, str]) -> str:
    if alternative := named.get("alt"):
        return alternative
    since = "since" if named.get("since") else "as of"
    return f"{since if named.get('lc') in ('y', 'yes') else since.capitalize()} {_date(positional, named)}"


def _about(prefix: str) -> Callable[[Sequence[str], Mapping[str, str]], str]:
    def rule(positional: Sequence[str], named: Mapping[str, str]) -> str:
        return prefix + " – ".join(part for part in positional[:2] if part)

    return rule


def _japanese(positional: Sequence[str], named: Mapping[str, str]) -> str:
    inside = ", ".join(part for part in positional[1:3] if part)
    return f"{_first(positional, named)} ({inside})" if inside else _first(positional, named)


_PLAIN = (
    "nowrap nobr nobreak small smaller big larger abbr tooltip sc smallcaps strong em i b bold italic nobold noitalic "
    "vanchor unicode polytonic script linktext mvar var mono code tt kbd samp flag flagcountry flagu arabic hebrew ar "
    "arabdin arabiyyah semxlit he zh angle serif sans-serif music normal highlight underline uline center block indent"
).split()
_RULES: dict[str, Callable[[Sequence[str], Mapping[str, str]], str]] = {
    **dict.fromkeys(_PLAIN, _first),
    **dict.fromkeys(("visible anchor", "not a typo", "proper name", "as written", "us state", "lang text"), _first),
    **dict.fromkeys(("color", "font color", "resize", "transl", "transliteration", "rtl-lang", "script/arabic"), _last),
    **dict.fromkeys(("quote", "quotation", "blockquote", "cquote", "bquote", "quoteblock", "poem quote"), _quote),
    **dict.fromkeys(("hlist", "flatlist", "plainlist", "unbulleted list", "ubl", "bulleted list", "cslist"), _list),
    **dict.fromkeys(("convert", "cvt", "convert/2"), _convert),
    **dict.fromkeys(("frac", "sfrac", "fraction"), _fraction),
    **dict.fromkeys(("val", "nts", "number"), _value),
    **dict.fromkeys(
        ("birth date", "death date", "start date", "end date", "birth date and age", "dob", "date", "dts"), _date
    ),
    **dict.fromkeys(("as of", "asof"), _as_of),
    **dict.fromkeys(("circa", "ca", "c"), _about("c. ")),
    **dict.fromkeys(("reign", "r."), _about("r. ")),
    **dict.fromkeys(("floruit", "fl."), _about("fl. ")),
    **dict.fromkeys(("nihongo", "nihongo3"), _japanese),
    **dict.fromkeys(("ill", "interlanguage link", "link-interwiki"), _first),
    **dict.fromkeys(("math", "bigmath", "tmath"), lambda positional, named: latex(_first(positional, named))),
    **dict.fromkeys(("sup", "smsup"), lambda positional, named: superscript(_first(positional, named))),
    **dict.fromkeys(("sub", "smsub"), _first),
    **dict.fromkeys(("chem", "chem2", "che"), lambda positional, named: "".join(positional)),
    **dict.fromkeys(("angbr", "angle bracket"), lambda positional, named: f"⟨{_first(positional, named)}⟩"),
    **dict.fromkeys(("us$", "usd"), lambda positional, named: f"US${_first(positional, named)}"),
    **dict.fromkeys(("£", "gbp"), lambda positional, named: f"£{_first(positional, named)}"),
    **dict.fromkeys(("€", "eur"), lambda positional, named: f"€{_first(positional, named)}"),
    **dict.fromkeys(("inr", "indian rupee"), lambda positional, named: f"₹{_first(positional, named)}"),
    **dict.fromkeys(("radic", "sqrt"), lambda positional, named: f"√{_first(positional, named)}"),
    **dict.fromkeys(("ipa", "ipa2", "ipa notation", "ipa-all"), _ipa),
    "abs": lambda positional, named: f"|{_first(positional, named)}|",
    "su": lambda positional, named: superscript(named.get("p", "")) + named.get("b", ""),
    "e": lambda positional, named: f"×10{superscript(_first(positional, named))}",
    "oldstyledate": lambda positional, named: " ".join(part for part in positional[:2] if part),
}
