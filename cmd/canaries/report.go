package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/berthoci/berth/internal/canary"
)

// event is a line of go test -json (go doc test2json).
type event struct {
	Action, Package, ImportPath, Test, Output string
}

// report is what is printed of tests.
type report struct {
	out   io.Writer
	found int                // secrets
	told  map[event][]string // lines of what runs, by package and test
	last  map[event]string   // the end of what was read before
	where []string           // secrets were found
}

func newReport(out io.Writer) *report {
	return &report{out: out, told: map[event][]string{}, last: map[event]string{}}
}

// event takes in what has happened.
func (r *report) event(e event) {
	key := event{Package: e.Package, Test: e.Test}
	if e.Output != "" {
		r.look(key, e.Output)
	}
	switch {
	case e.Action == "build-output":
		fmt.Fprint(r.out, e.Output)
	case e.Action == "output" && e.Test == "":
		r.ofPackage(e)
	case e.Action == "output" && !strings.HasPrefix(strings.TrimLeft(e.Output, " "), "=== "):
		r.told[key] = append(r.told[key], e.Output)
	case e.Action == "fail":
		r.failed(e)
	case e.Action == "pass", e.Action == "skip":
		delete(r.told, key)
		delete(r.last, key)
	}
}

// look finds a secret in what was written, also where it was written in two pieces.
func (r *report) look(key event, text string) {
	whole := r.last[key] + text
	r.last[key] = whole[max(0, len(whole)-canary.Longest+1):]
	secret := canary.Find(whole)
	if secret == "" {
		return
	}
	r.last[key] = "" // it is not counted twice
	r.found++
	r.where = append(r.where, fmt.Sprintf("%s %s tells %s: %.300s", key.Package, key.Test, secret, strings.TrimRight(whole, "\n")))
}

// ofPackage prints what go test prints of a package that is tested well, or what it wrote beside its tests.
func (r *report) ofPackage(e event) {
	if e.Output != "PASS\n" && !strings.HasPrefix(e.Output, "=== ") {
		fmt.Fprint(r.out, e.Output)
	}
}

// failed prints what a test has told, or all of a package's that have not come to their end.
func (r *report) failed(e event) {
	of := func(key event) bool { return key.Package == e.Package && (key.Test == e.Test || e.Test == "") }
	for _, key := range slices.SortedFunc(maps.Keys(r.told), func(a, b event) int { return strings.Compare(a.Test, b.Test) }) {
		if of(key) {
			fmt.Fprint(r.out, strings.Join(r.told[key], ""))
			delete(r.told, key)
		}
	}
}

// end tells of the secrets.
func (r *report) end() {
	for _, where := range r.where {
		fmt.Fprintln(r.out, "CANARY", where)
	}
	if r.found > 0 {
		fmt.Fprintf(r.out, "FAIL: secrets of tests came to light %d times\n", r.found)
	}
}
