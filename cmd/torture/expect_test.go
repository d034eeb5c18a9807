package main

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// script plays a history. Each line is an event: "begin ID KIND REPO DIGEST TAGS…" with "-" for what is
// empty, "ack ID", "void ID", "refused ID"; "later" lets ten seconds pass. Positions begin at 1 and
// "later" has none.
func script(t *testing.T, base State, text string) *History {
	t.Helper()
	h, now := NewHistory(base), time.Unix(1000, 0)
	for line := range strings.Lines(strings.TrimSpace(text)) {
		words := strings.Fields(line)
		if words[0] == "later" {
			now = now.Add(10 * time.Second)
			continue
		}
		e := Event{Phase: Phase(words[0])}
		fmt.Sscan(words[1], &e.ID)
		if e.Phase == Begin {
			e.Op = &Op{Kind: Kind(words[2]), Repo: empty(words[3]), Digest: digest.Digest(empty(words[4])), Tags: words[5:]}
		}
		if err := h.Take(e, now); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
	}
	return h
}

func empty(word string) string {
	if word == "-" {
		return ""
	}
	return word
}

// expectBase is where the histories of expectTests begin.
var expectBase = State{{Kind: Push, Repo: "r", Digest: "A", Tags: []string{"v1", "v2"}}}

var expectTests = []struct {
	name      string
	text      string
	tags      map[string][]string
	manifests map[string]Presence
}{
	{"nothing happened", ``,
		map[string][]string{"r:v1": {"A"}, "r:v2": {"A"}}, map[string]Presence{"r@A": There}},
	{"a push that was answered", "begin 1 push r B v1\n ack 1",
		map[string][]string{"r:v1": {"B"}, "r:v2": {"A"}}, map[string]Presence{"r@A": There, "r@B": There}},
	{"a push that was not", "begin 1 push r B v1 new",
		map[string][]string{"r:v1": {"A", "B"}, "r:v2": {"A"}, "r:new": {"", "B"}}, map[string]Presence{"r@A": There, "r@B": Maybe}},
	{"a push that failed may have happened", "begin 1 push r B v1\n refused 1",
		map[string][]string{"r:v1": {"A", "B"}, "r:v2": {"A"}}, map[string]Presence{"r@A": There, "r@B": Maybe}},
	{"two in a row", "begin 1 push r B v1\n ack 1\n begin 2 push r C v1\n ack 2",
		map[string][]string{"r:v1": {"C"}, "r:v2": {"A"}}, map[string]Presence{"r@A": There, "r@B": There, "r@C": There}},
	{"two at once", "begin 1 push r B v1\n begin 2 push r C v1\n ack 1\n ack 2",
		map[string][]string{"r:v1": {"B", "C"}, "r:v2": {"A"}}, map[string]Presence{"r@A": There, "r@B": There, "r@C": There}},
	{"an old one that is still open", "begin 1 push r B v1\n begin 2 push r C v1\n ack 2\n begin 3 push r D v1\n ack 3",
		map[string][]string{"r:v1": {"B", "D"}, "r:v2": {"A"}}, map[string]Presence{"r@A": There, "r@B": Maybe, "r@C": There, "r@D": There}},
	{"an untag", "begin 1 untag r - v1\n ack 1",
		map[string][]string{"r:v1": {""}, "r:v2": {"A"}}, map[string]Presence{"r@A": There}},
	{"an untag that found nothing", "begin 1 untag r - new\n void 1",
		map[string][]string{"r:v1": {"A"}, "r:v2": {"A"}}, map[string]Presence{"r@A": There}},
	{"a deletion takes its tags along", "begin 1 push r B v1\n ack 1\n begin 2 delete r A\n ack 2",
		map[string][]string{"r:v1": {"B"}, "r:v2": {""}}, map[string]Presence{"r@A": Gone, "r@B": There}},
	{"a deletion that was not answered", "begin 1 delete r A",
		map[string][]string{"r:v1": {"", "A"}, "r:v2": {"", "A"}}, map[string]Presence{"r@A": Maybe}},
	{"a deletion while its tag moves", "begin 1 push r B v1\n begin 2 delete r A\n ack 2\n ack 1",
		map[string][]string{"r:v1": {"", "B"}, "r:v2": {""}}, map[string]Presence{"r@A": Gone, "r@B": There}},
	{"a tag that comes back", "begin 1 delete r A\n ack 1\n begin 2 push r B v1\n ack 2",
		map[string][]string{"r:v1": {"B"}, "r:v2": {""}}, map[string]Presence{"r@A": Gone, "r@B": There}},
	{"a deleted manifest is pushed again", "begin 1 delete r A\n ack 1\n begin 2 push r A v2\n ack 2",
		map[string][]string{"r:v1": {""}, "r:v2": {"A"}}, map[string]Presence{"r@A": There}},
	{"repositories do not share", "begin 1 delete s A\n ack 1\n begin 2 push s B v1",
		map[string][]string{"r:v1": {"A"}, "r:v2": {"A"}, "s:v1": {"", "B"}}, map[string]Presence{"r@A": There, "s@A": Gone, "s@B": Maybe}},
}

func TestExpect(t *testing.T) {
	for _, test := range expectTests {
		t.Run(test.name, func(t *testing.T) {
			got := script(t, expectBase, test.text).Expect(AfterKill())
			if !reflect.DeepEqual(got.Tags, test.tags) {
				t.Errorf("tags: got %q, want %q", got.Tags, test.tags)
			}
			if !reflect.DeepEqual(got.Manifests, test.manifests) {
				t.Errorf("manifests: got %q, want %q", got.Manifests, test.manifests)
			}
		})
	}
}

// cutScript is what happened before and after the cuts of cutTests.
const cutScript = `
	begin 1 blob r X
	ack   1
	begin 2 push r A v1
	ack   2
	later
	begin 3 push r B v1
	ack   3
	begin 4 flush - -
	ack   4
	begin 5 push r C v1
	ack   5
	begin 6 push r D v1
	ack   6`

var cutTests = []struct {
	name  string
	cut   Cut
	v1    []string
	blobs []string
}{
	{"all answers count", Cut{Heard: 12, Begun: 12, Unnamed: true}, []string{"D"}, []string{"r@X"}},
	{"the last one was not heard", Cut{Heard: 11, Begun: 11}, []string{"C", "D"}, nil},
	{"the last one had not begun", Cut{Heard: 10, Begun: 10}, []string{"C"}, nil},
	{"it may have begun", Cut{Heard: 9, Begun: 11}, []string{"B", "C", "D"}, nil},
	{"old answers and flushed ones", Cut{Heard: 12, Begun: 12, Since: time.Unix(1000, 0)}, []string{"B", "C", "D"}, nil},
	{"the flush had not ended", Cut{Heard: 7, Begun: 9, Since: time.Unix(1000, 0)}, []string{"A", "B", "C"}, nil},
	{"nothing is old enough", Cut{Heard: 6, Begun: 6, Since: time.Unix(999, 0), Unnamed: true}, []string{"", "A", "B"}, nil},
	{"before everything", Cut{}, nil, nil},
}

// What a cut demands depends on when it was and on what was promised.
func TestCut(t *testing.T) {
	h := script(t, nil, cutScript)
	for _, test := range cutTests {
		t.Run(test.name, func(t *testing.T) {
			got := h.Expect(test.cut)
			if !reflect.DeepEqual(got.Tags["r:v1"], test.v1) {
				t.Errorf("v1 may be %q, want %q", got.Tags["r:v1"], test.v1)
			}
			if !reflect.DeepEqual(got.Blobs, test.blobs) {
				t.Errorf("blobs: %q, want %q", got.Blobs, test.blobs)
			}
		})
	}
}

func TestSettle(t *testing.T) {
	base := State{
		{Kind: Push, Repo: "r", Digest: "A", Tags: []string{"v1"}},
		{Kind: Push, Repo: "r", Digest: "B", Tags: []string{"v2"}, Writer: 3},
	}
	h := script(t, base, "begin 1 push r C v1 v2\n ack 1\n begin 2 push r D v3\n begin 3 push s C v1\n begin 4 push r B v9\n ack 4")
	got := h.Settle(map[string]digest.Digest{"r:v1": "C", "r:v2": "C", "r:v9": "B", "s:v1": "C"}, []string{"r@B", "r@C", "s@C"})
	want := State{
		{Kind: Push, Repo: "r", Digest: "B", Tags: []string{"v9"}, Writer: 3},
		{Kind: Push, Repo: "r", Digest: "C", Tags: []string{"v1", "v2"}},
		{Kind: Push, Repo: "s", Digest: "C", Tags: []string{"v1"}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

func TestHistoryRefusesNonsense(t *testing.T) {
	h := script(t, nil, "begin 1 push r A v1\n ack 1")
	for _, e := range []Event{{Phase: Ack, ID: 1}, {Phase: Void, ID: 2}, {Phase: "other", ID: 1}} {
		if err := h.Take(e, time.Time{}); err == nil {
			t.Errorf("%+v was taken", e)
		}
	}
}
