"""What PBS clients print, letter for letter as OpenPBS's do (tested against captures of them). Pure."""

import json
import time

HISTORY_OFF = "PBS is not configured to maintain job history"
FINISHED = "Job has finished, use -x or -H to obtain historical job information"
QSUB_USAGE = """usage: qsub [-a date_time] [-A account_string] [-c interval]
	[-C directive_prefix] [-e path] [-f ] [-h ] [-I [-X]] [-j oe|eo] [-J X-Y[:Z]]
	[-k keep] [-l resource_list] [-m mail_options] [-M user_list]
	[-N jobname] [-o path] [-p priority] [-P project] [-q queue] [-r y|n]
	[-R o|e|oe] [-S path] [-u user_list] [-W otherattributes=value...]
	[-v variable_list] [-V ] [-z] [script | -- command [arg1 ...]]
       qsub --version
"""
QDEL_USAGE = """usage:
	qdel [-W force|suppress_email=X] [-x] job_identifier...
	qdel --version
"""
TABLE_HEAD = """Job id            Name             User              Time Use S Queue
----------------  ---------------- ----------------  -------- - -----
"""


def date(seconds):
    return time.strftime("%a %b %d %H:%M:%S %Y", time.localtime(seconds))


def span(seconds):
    seconds = int(seconds)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def parse_span(text):
    """Seconds of 90, 10:00 or 01:00:00; None when it is none."""
    total = 0
    for part in str(text).split(":"):
        if not part.isdigit():
            return None
        total = total * 60 + int(part)
    return total


def _quoted(text):
    return json.dumps(text, ensure_ascii=False)


def _number_like(text):
    try:
        float(text)
        return text.strip() == text
    except ValueError:
        return False


class Style:
    """How a version of the clients writes JSON."""

    def __init__(self, indent, colon, end):
        self.indent, self.colon, self.end = indent, colon, end


MASTER = Style("\t", ":\t", "\n")
V23 = Style("    ", ":", "")  # and values as they come, see _value


def _value(value, style):
    if isinstance(value, (int, float)):
        return str(value)
    # 23.06.06 takes whatever begins like a number for one, nan and inf included.
    if style is V23 and _number_like(value) and not (len(value) > 1 and value[0] == "0"):
        return value
    return _quoted(value)


def _members(mapping, depth, style):
    lines = []
    for name, value in mapping.items():
        head = style.indent * depth + _quoted(name) + style.colon
        if isinstance(value, dict):
            inner = _members(value, depth + 1, style)
            text = "{\n" + inner + ("\n" if inner else "") + style.indent * depth + "}"
        else:
            text = _value(value, style)
        lines.append(head + text)
    return ",\n".join(lines)


def json_answer(server, now, style=MASTER, **sections):
    """The whole of `qstat -F json`; a section without entries is left out, as PBS does."""
    answer = {"timestamp": int(now), "pbs_version": "23.06.06", "pbs_server": server}
    answer.update({name: part for name, part in sections.items() if part})
    return "{\n" + _members(answer, 1, style) + "\n}" + style.end


def swallow_empty(variables):
    """23.06.06: an empty variable takes the next one for its value."""
    result, pending = {}, None
    for name, value in variables.items():
        if pending is not None:
            result[pending] = f",{name}={value}"
            pending = None
        elif value == "":
            pending = name
        else:
            result[name] = value
    if pending is not None:
        result[pending] = ""
    return result


def table_line(job_id, name, user, used, state, queue):
    if len(name) > 15:
        name = name[:15] + "*"
    return f"{job_id:<17} {name:<16} {user:<16} {used:>9} {state} {queue:<16}\n"


def attribute_lines(mapping, prefix=""):
    for name, value in mapping.items():
        if name == "Variable_List":
            yield name, ",".join(f"{k}={v}" for k, v in value.items())
        elif isinstance(value, dict):
            for inner, text in value.items():
                yield f"{name}.{inner}", str(text)
        else:
            yield name, str(value)


def dsv(job_id, attributes, delimiter="|"):
    return delimiter.join([f"Job Id: {job_id}"] + [f"{n}={v}" for n, v in attribute_lines(attributes)]) + "\n"
