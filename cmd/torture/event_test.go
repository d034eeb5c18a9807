package main

import (
	"reflect"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

func TestEventsSurviveTheirEncoding(t *testing.T) {
	sum := digest.SHA512.FromString("x")
	largest := Op{Kind: Push, Writer: 7, Repo: strings.Repeat("r", 255), Digest: sum, Subject: sum,
		Tags: []string{"w7-15", "w7-14", "w7-13", "latest"}, Manifests: []digest.Digest{sum, sum}}
	for _, e := range []Event{
		{Phase: Opened},
		{Phase: Mark, ID: 3},
		{Phase: Begin, ID: 1 << 40, Op: &largest},
		{Phase: Begin, ID: 2, Op: &Op{Kind: Flush}},
		{Phase: Ack, ID: 2},
		{Phase: Refused, ID: 2, Text: "no space\nleft \x00 \"here\""},
	} {
		line, err := e.encode()
		if err != nil {
			t.Fatal(err)
		}
		if strings.Count(string(line), "\n") != 1 || len(line) > maxLine {
			t.Errorf("%+v is %d bytes on %d lines", e, len(line), strings.Count(string(line), "\n"))
		}
		got, err := decode(line)
		if err != nil || !reflect.DeepEqual(got, e) {
			t.Errorf("got %+v, %v, want %+v", got, err, e)
		}
		if _, err := decode(line[:len(line)-1]); err == nil {
			t.Errorf("%q was taken without its end", line)
		}
	}
}

func TestALineThatDoesNotFit(t *testing.T) {
	long := Event{Phase: Begin, ID: 1, Op: &Op{Kind: Push, Tags: []string{strings.Repeat("t", maxLine)}}}
	if _, err := long.encode(); err == nil {
		t.Error("it was encoded")
	}
	line, err := Event{Phase: Refused, ID: 1, Text: strings.Repeat("x", maxLine)}.encode()
	if err != nil || len(line) > maxLine {
		t.Errorf("a long error: %d bytes, %v", len(line), err)
	}
}

func TestDecodeRefuses(t *testing.T) {
	for _, line := range []string{"", "\n", "{", "{}{}\n", "[]\n", `{"phase":"begin","id":1}` + "\n", `{"phase":"ack","id":1,"op":{"kind":"push"}}` + "\n"} {
		if e, err := decode([]byte(line)); err == nil {
			t.Errorf("%q was taken as %+v", line, e)
		}
	}
}
