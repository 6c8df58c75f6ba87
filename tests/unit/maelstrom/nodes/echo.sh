#!/bin/sh
# An echo node in shell: sed cuts the message up, a process of its own for every part.
while read -r line; do
    src=$(printf '%s' "$line" | sed 's/.*"src":"\([^"]*\)".*/\1/')
    dest=$(printf '%s' "$line" | sed 's/.*"dest":"\([^"]*\)".*/\1/')
    id=$(printf '%s' "$line" | sed 's/.*"msg_id":\([0-9]*\).*/\1/')
    case $line in
    *'"type":"init"'*) body='"type":"init_ok"' ;;
    *) body="\"type\":\"echo_ok\",\"echo\":$(printf '%s' "$line" | sed 's/.*"echo":\("[^"]*"\|[0-9]*\).*/\1/')" ;;
    esac
    printf '{"src":"%s","dest":"%s","body":{%s,"in_reply_to":%s}}\n' "$dest" "$src" "$body" "$id"
done
