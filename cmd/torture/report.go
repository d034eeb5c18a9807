package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// maxShown bounds the findings that are printed; all are counted.
const maxShown = 50

var errFound = errors.New("the store did not keep its promises")

// report counts what was done and found.
type report struct {
	out    io.Writer
	begin  time.Time
	counts []count
	acks   map[Kind]int
	// demanded counts the tags, manifests and blobs that were to be in one certain state.
	demanded int
	found    map[Class]int
	shown    int
}

// count is one number of the report's line, with its word.
type count struct {
	word string
	n    int
}

func newReport(out io.Writer, words ...string) *report {
	r := &report{out: out, begin: time.Now(), acks: map[Kind]int{}, found: map[Class]int{}}
	for _, word := range words {
		r.counts = append(r.counts, count{word: word})
	}
	return r
}

// add counts one more of what newReport was given words for.
func (r *report) add(word string) {
	for i := range r.counts {
		if r.counts[i].word == word {
			r.counts[i].n++
		}
	}
}

// heard adds the operations of a child that is dead.
func (r *report) heard(h *History, where string) {
	for kind, n := range h.Acks() {
		r.acks[kind] += n
	}
	for _, text := range h.Refused() {
		r.find(where, Finding{Rejected, text})
	}
}

func (r *report) find(where string, all ...Finding) {
	for _, f := range all {
		r.found[f.Class]++
		if r.shown++; r.shown <= maxShown {
			fmt.Fprintf(r.out, "%s: %s: %s\n", where, f.Class, f.Text)
		}
	}
}

// verified adds what a verifier found, and what the store said where that was anything.
func (r *report) verified(where string, result Result) {
	r.find(where, result.Findings...)
	if len(result.Findings) > 0 && result.Log != "" {
		fmt.Fprintf(r.out, "%s: the store's log: %s\n", where, result.Log)
	}
}

// failed reports whether anything was found.
func (r *report) failed() bool { return len(r.found) > 0 }

// end prints the line that sums up, and returns errFound where something was found.
func (r *report) end(name string, seed uint64) error {
	operations := 0
	for _, n := range r.acks {
		operations += n
	}
	var line strings.Builder
	fmt.Fprintf(&line, "%s:", name)
	for _, c := range r.counts {
		fmt.Fprintf(&line, " %d %s,", c.n, c.word)
	}
	fmt.Fprintf(&line, " %d pushes and %d operations answered, %d states demanded,", r.acks[Push], operations, r.demanded)
	for _, class := range classes {
		fmt.Fprintf(&line, " %d %s,", r.found[class], class)
	}
	fmt.Fprintf(r.out, "%s %.0f seconds, seed %d\n", &line, time.Since(r.begin).Seconds(), seed)
	if r.failed() {
		return errFound
	}
	return nil
}
