package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// cmdVerifier is the command that a parent starts this program with to look at a layout: a store
// that is damaged may take the process down that opens it.
const cmdVerifier = "verifier"

// verifyPatience is how long a verification may take.
const verifyPatience = 10 * time.Minute

// Task says what a verifier looks at, and what it is to find.
type Task struct {
	Layout     string      `json:"layout"`
	Durability string      `json:"durability"`
	Expect     Expectation `json:"expect"`
	// Read restricts whose bytes are read, as "repository@digest". Nil: everything's.
	Read map[string]bool `json:"read"`
	// Before demands that index.json is whole before the layout is opened.
	Before bool `json:"before"`
	// Collect collects garbage before looking.
	Collect bool `json:"collect"`
}

// Result is what a verifier found.
type Result struct {
	Findings []Finding `json:"findings"`
	// Log is what the store said about it.
	Log string `json:"-"`
	// Tags and Manifests are what is there.
	Tags      map[string]digest.Digest `json:"tags"`
	Manifests []string                 `json:"manifests"`
}

// Finding is one thing that is wrong.
type Finding struct {
	Class Class  `json:"class"`
	Text  string `json:"text"`
}

// Class is what kind of thing is wrong.
type Class string

// The classes of findings.
const (
	Lost       Class = "lost"
	Wrong      Class = "wrong"
	Unreadable Class = "unreadable"
	Rejected   Class = "refused"
)

// classes in the order in which a report counts them.
var classes = []Class{Lost, Wrong, Unreadable, Rejected}

// verifierCommand reads a task and writes its result.
func verifierCommand(ctx context.Context, args []string, out io.Writer) error {
	if err := flag.NewFlagSet(cmdVerifier, flag.ContinueOnError).Parse(args); err != nil {
		return err
	}
	var task Task
	if err := json.NewDecoder(os.Stdin).Decode(&task); err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(newVerifier(task).run(ctx))
}

// run has a task done by another process. That one's death is a finding.
func (t Task) run(ctx context.Context, env ...string) (result Result, err error) {
	self, err := os.Executable()
	if err != nil {
		return result, err
	}
	input, err := json.Marshal(t)
	if err != nil {
		return result, err
	}
	limited, cancel := context.WithTimeout(ctx, verifyPatience)
	defer cancel()
	said := &tail{}
	cmd := exec.CommandContext(limited, self, cmdVerifier)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdin, cmd.Stderr = strings.NewReader(string(input)), said
	output, err := cmd.Output()
	if ctx.Err() != nil {
		return result, ctx.Err()
	}
	if err == nil {
		err = json.Unmarshal(output, &result)
	}
	if err != nil {
		text := fmt.Sprintf("%s: the process that looked at it ended: %v: %s", t.Layout, err, said)
		return Result{Findings: []Finding{{Unreadable, text}}}, nil
	}
	result.Log = said.String()
	return result, nil
}
