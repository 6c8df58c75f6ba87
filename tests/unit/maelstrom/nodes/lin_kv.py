"""A lin-kv node on its own, with nothing of ours: one node has the register, the others ask it.

With the argument ``naive`` each has a register of its own, which is not linearizable.
"""

import json
import sys

NAIVE = "naive" in sys.argv[1:]

me, primary, store = "", "", {}
asked = {}  # our msg_id: (client, its msg_id)


def say(dest, **body):
    print(json.dumps({"src": me, "dest": dest, "body": body}), flush=True)


def execute(body):
    key = body["key"]
    if body["type"] == "write":
        store[key] = body["value"]
        return {"type": "write_ok"}
    if key not in store:
        return {"type": "error", "code": 20, "text": "no such key"}
    if body["type"] == "read":
        return {"type": "read_ok", "value": store[key]}
    if store[key] != body["from"]:
        return {"type": "error", "code": 22, "text": "it has another value"}
    store[key] = body["to"]
    return {"type": "cas_ok"}


for line in sys.stdin:
    message = json.loads(line)
    body, sender = message["body"], message["src"]
    kind, number = body["type"], body.get("msg_id")
    if kind == "init":
        me, primary = body["node_id"], min(body["node_ids"])
        say(sender, type="init_ok", in_reply_to=number)
    elif kind in ("read", "write", "cas"):
        if NAIVE or me == primary:
            say(sender, **execute(body), in_reply_to=number)
        else:
            mine = len(asked)
            asked[mine] = (sender, number)
            say(primary, **{**body, "msg_id": mine})
    elif "in_reply_to" in body:
        client, its = asked[body["in_reply_to"]]
        say(client, **{**body, "in_reply_to": its})
    else:
        say(sender, type="error", code=10, text=f"no {kind} here", in_reply_to=number)
