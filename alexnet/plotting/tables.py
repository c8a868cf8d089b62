"""Tables of a notebook."""


def table(rows, columns, formats=None):
    """Dictionaries as a Markdown table, which a notebook shows as such.

    Args:
        rows: The dictionaries.
        columns: Column titles by key; numbers are set to the right, with separators between thousands.
        formats: By key how numbers are written, as in f-strings: `{"top1": ".1%"}`.
    """
    from IPython.display import Markdown

    def cell(key, value):
        if isinstance(value, tuple):
            return "\u00a0×\u00a0".join(map(str, value))  # one line
        return format(value, (formats or {}).get(key, "," if isinstance(value, int) else ""))

    right = [isinstance(rows[0][key], int | float) for key in columns]
    lines = [list(columns.values()), ["---:" if r else ":---" for r in right]]
    lines += [[cell(key, row[key]) for key in columns] for row in rows]
    return Markdown("\n".join("| " + " | ".join(line) + " |" for line in lines))
