package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/berthoci/berth/internal/canary"
)

// running is a berth serve that a script has started.
type running struct {
	cmd    *exec.Cmd
	stderr bytes.Buffer
	ended  bool
}

// processes is where a script's environment has those that it has started, by their names.
type processes struct{}

// serve NAME [FLAG...]
//
// Starts berth serve at an address of the system's choice, which the variable NAME is once the
// registry answers. It ends by interrupt, or with the script.
func startServe(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg || len(args) == 0, "serve NAME [FLAG...]")
	p := &running{cmd: exec.Command(lookPath(ts, "berth"), append([]string{"serve", "--addr", "127.0.0.1:0"}, args[1:]...)...)}
	p.cmd.Dir = ts.MkAbs(".")
	p.cmd.Stderr = &p.stderr
	for _, name := range []string{"BERTH_LAYOUT", "HOME", "PATH", "TMPDIR", "GOCOVERDIR", "GORACE"} {
		if value := ts.Getenv(name); value != "" {
			p.cmd.Env = append(p.cmd.Env, name+"="+value)
		}
	}
	stdout, err := p.cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(p.cmd.Start())
	ts.Defer(func() {
		if !p.ended {
			p.cmd.Process.Kill()
			p.cmd.Wait()
		}
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	ts.Check(err)
	ts.Setenv(args[0], addressIn(ts, line))
	ts.Setenv(args[0]+"_pid", strconv.Itoa(p.cmd.Process.Pid))
	ts.Value(processes{}).(map[string]*running)[args[0]] = p
}

var readyLine = regexp.MustCompile(`^serving (.+) at https?://((?:127\.0\.0\.1|\[::\]):[0-9]+)\n$`)

// addressIn reads the line that tells that a registry answers: as people read it, or as data.
func addressIn(ts *testscript.TestScript, line string) string {
	if match := readyLine.FindStringSubmatch(line); match != nil {
		return match[2]
	}
	var ready struct{ Address, Layout string }
	ts.Check(json.Unmarshal([]byte(line), &ready))
	if ready.Layout == "" || ready.Address == "" {
		ts.Fatalf("it says %q", line)
	}
	return ready.Address
}

// interrupt NAME [REGEXP]
//
// Interrupts a berth serve as Ctrl-C does. It ends well, and has nothing to say, or what matches.
func interrupt(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg || len(args) < 1 || len(args) > 2, "interrupt NAME [REGEXP]")
	p := ts.Value(processes{}).(map[string]*running)[args[0]]
	usage(ts, p == nil, "interrupt NAME, of a registry that was started")
	ts.Check(p.cmd.Process.Signal(os.Interrupt))
	p.awaitEnd(ts, args[1:]...)
}

// ends NAME
//
// A berth serve ends well without being interrupted, and has nothing to say.
func ends(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg || len(args) != 1, "ends NAME")
	p := ts.Value(processes{}).(map[string]*running)[args[0]]
	usage(ts, p == nil, "ends NAME, of a registry that was started")
	p.awaitEnd(ts)
}

// awaitEnd waits for a good end; what it said matches, or is nothing.
func (p *running) awaitEnd(ts *testscript.TestScript, says ...string) {
	err := p.cmd.Wait()
	p.ended = true
	wanted := p.stderr.Len() == 0
	for _, one := range says {
		wanted = regexp.MustCompile(one).Match(p.stderr.Bytes())
	}
	if secret := canary.Find(p.stderr.String()); err != nil || !wanted || secret != "" {
		ts.Fatalf("it ended with %v and said %s", err, p.stderr.String())
	}
}

// lookPath finds a program as the script's exec does.
func lookPath(ts *testscript.TestScript, name string) string {
	for dir := range strings.SplitSeq(ts.Getenv("PATH"), string(os.PathListSeparator)) {
		if path, err := exec.LookPath(dir + string(os.PathSeparator) + name); err == nil {
			return path
		}
	}
	ts.Fatalf("%s is not on PATH", name)
	return ""
}
