// Command canaries runs tests, and fails where they print a secret. It takes the arguments of go test:
//
//	canaries -race ./sdk/...
//
// The tests run once, and tell all that -v would have them tell, which is read and not printed: what is printed is what go test
// prints without -v. A secret is what internal/canary takes for one.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
)

func main() {
	code, err := run("", os.Args[1:], os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "canaries:", err)
	}
	os.Exit(code)
}

// run runs the tests in a directory, and returns the exit code.
func run(dir string, args []string, out io.Writer) (int, error) {
	cmd := exec.Command("go", append([]string{"test", "-json"}, args...)...)
	cmd.Dir = dir
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return 1, err
	}
	cmd.Stderr = cmd.Stdout // what go itself says is no JSON, and is taken as it is
	if err := cmd.Start(); err != nil {
		return 1, err
	}
	r := newReport(out)
	readErr := r.read(stdout)
	err = cmd.Wait()
	r.end()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		return exit.ExitCode(), readErr
	case err != nil || readErr != nil:
		return 1, errors.Join(err, readErr)
	case r.found > 0:
		return 1, nil
	}
	return 0, nil
}

// read takes in what go test writes.
func (r *report) read(from io.Reader) error {
	lines := bufio.NewReader(from)
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			r.take(line)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// take takes in one line: an event, or what go says by itself.
func (r *report) take(line string) {
	var e event
	if json.Unmarshal([]byte(line), &e) != nil || e.Action == "" {
		e = event{Action: "build-output", Output: line}
	}
	r.event(e)
}
