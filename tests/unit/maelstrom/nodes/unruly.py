"""A node that does whatever its argument says a binary must not do."""

import json
import sys
import time

way = sys.argv[1]
for number, line in enumerate(sys.stdin, 1):
    message = json.loads(line)
    body = message["body"]
    me = message["dest"]
    if way == "mute":
        continue
    answer = {"type": f"{body['type']}_ok", "in_reply_to": body["msg_id"]}
    if body["type"] == "read":
        answer["value"] = 1
    if way == "debug" and number == 3:
        print("debug: here I am", flush=True)
    if way == "forger" and number == 3:
        print(json.dumps({"src": "n9", "dest": "n1", "body": {"type": "hello"}}), flush=True)
    if way == "inventor" and number == 3:
        print(json.dumps({"src": me, "dest": "c77", "body": {"type": "hello", "msg_id": 5}}), flush=True)
    if way == "long" and number == 3:
        print("x" * (2 << 20), flush=True)
    if way == "exit" and number == 3:
        sys.exit("I have had enough")
    if way == "flood" and number == 3:
        while True:
            print(json.dumps({"src": me, "dest": me, "body": {"type": "hello"}}))
    if way == "restless" and number == 3:
        while True:
            time.perf_counter()
    print(json.dumps({"src": me, "dest": message["src"], "body": answer}), flush=True)
