package main

import (
	"encoding/json"
	"fmt"

	"github.com/opencontainers/go-digest"
)

// Kind is what an operation does.
type Kind string

// The kinds of operation.
const (
	Push   Kind = "push"   // a manifest, and tags that point at it
	Untag  Kind = "untag"  // tags removed, the manifest stays
	Delete Kind = "delete" // a manifest removed, and the tags that point at it
	Blob   Kind = "blob"   // a blob uploaded or mounted
	Flush  Kind = "flush"  // all that was answered before made durable
	Read   Kind = "read"   // a manifest looked up; told only where that fails
)

// Op is one operation on a layout.
type Op struct {
	Kind   Kind          `json:"kind"`
	Writer int           `json:"writer"`
	Repo   string        `json:"repo,omitempty"`
	Digest digest.Digest `json:"digest,omitempty"`
	Tags   []string      `json:"tags,omitempty"`
	// Subject and Manifests are what a pushed manifest refers to and lists.
	Subject   digest.Digest   `json:"subject,omitempty"`
	Manifests []digest.Digest `json:"manifests,omitempty"`
}

// manifest names the operation's manifest or blob: "app/one@sha256:…".
func (o Op) manifest() string { return o.Repo + "@" + string(o.Digest) }

// tag names one of the operation's tags: "app/one:w3-7".
func (o Op) tag(tag string) string { return o.Repo + ":" + tag }

// Phase is how far an operation has come.
type Phase string

// The phases of an operation, and two that have none.
const (
	Begin   Phase = "begin"
	Ack     Phase = "ack"     // it was answered: it has happened
	Void    Phase = "void"    // it was answered: there was nothing to do
	Refused Phase = "refused" // it failed: it may have happened
	Opened  Phase = "opened"  // the layout is open
	Mark    Phase = "mark"    // the parent asked for this line
)

// Event is one line from a child to its parent: an operation begins, or was answered.
type Event struct {
	Phase Phase `json:"phase"`
	// ID is the operation's, unique within one child; or the mark's.
	ID int64 `json:"id,omitempty"`
	// Op is told at the beginning.
	Op *Op `json:"op,omitempty"`
	// Text says why an operation was refused.
	Text string `json:"text,omitempty"`
}

const (
	// maxLine is what one write to a pipe carries whole, even if the writer is killed in it.
	maxLine = 4096
	maxText = 500
)

// encode returns the event as a line.
func (e Event) encode() ([]byte, error) {
	if len(e.Text) > maxText {
		e.Text = e.Text[:maxText]
	}
	line, err := json.Marshal(e)
	if err == nil && len(line) >= maxLine {
		err = fmt.Errorf("event %d has %d bytes, a line has at most %d", e.ID, len(line), maxLine)
	}
	return append(line, '\n'), err
}

// decode reads a line. One without an end was cut off, and says nothing.
func decode(line []byte) (e Event, err error) {
	if len(line) == 0 || line[len(line)-1] != '\n' {
		return e, fmt.Errorf("the line %.100q has no end", line)
	}
	if err := json.Unmarshal(line, &e); err != nil {
		return e, fmt.Errorf("the line %.100q is no event: %w", line, err)
	}
	if (e.Phase == Begin) != (e.Op != nil) {
		return e, fmt.Errorf("event %d %q has an operation where it may not, or none", e.ID, e.Phase)
	}
	return e, nil
}
