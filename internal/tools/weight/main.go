// Weight tells what it costs a program to use a package: in packages, and in MiB of its binary, beyond those of a program
// that says hello.
//
//	cd internal/tools && go run ./weight ../.. sdk.Open=350,15 sdk/embedded.Main
//
// Each is named with what the program calls of it. It may have a budget, in both: more than that is a failure.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const (
	module = "github.com/berthoci/berth/"
	hello  = `package main

import (
	"fmt"
	%s
)

func main() { fmt.Println("hello", %s) }
`
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "weight:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 2 {
		return errors.New("want the module's directory, and packages")
	}
	nothing, err := weigh(args[0], "")
	if err != nil {
		return err
	}
	var errs []error
	for _, arg := range args[1:] {
		name, budget, _ := strings.Cut(arg, "=")
		all, err := weigh(args[0], name)
		if err != nil {
			return err
		}
		added := weight{all.packages - nothing.packages, all.mebibytes - nothing.mebibytes}
		fmt.Printf("%-28s %4d packages  %5.1f MiB\n", name, added.packages, added.mebibytes)
		errs = append(errs, added.within(name, budget))
	}
	return errors.Join(errs...)
}

type weight struct {
	packages  int
	mebibytes float64
}

// within compares with a budget like "300,9.5". An empty one is none.
func (w weight) within(name, budget string) error {
	if budget == "" {
		return nil
	}
	var most weight
	if _, err := fmt.Sscanf(budget, "%d,%f", &most.packages, &most.mebibytes); err != nil {
		return fmt.Errorf("budget %q: %w", budget, err)
	}
	if w.packages > most.packages || w.mebibytes > most.mebibytes {
		return fmt.Errorf("%s is too heavy: its budget is %d packages and %.1f MiB", name, most.packages, most.mebibytes)
	}
	return nil
}

// weigh builds a program that uses a package, and nothing else. An empty name is none.
func weigh(dir, name string) (w weight, err error) {
	temp, err := os.MkdirTemp("", "weight-")
	if err != nil {
		return w, err
	}
	defer os.RemoveAll(temp)
	imported, used := "", "0"
	if path, symbol, ok := strings.Cut(name, "."); ok {
		imported, used = fmt.Sprintf("used %q", module+path), "used."+symbol
	}
	file, binary := filepath.Join(temp, "main.go"), filepath.Join(temp, "hello")
	if err := os.WriteFile(file, fmt.Appendf(nil, hello, imported, used), 0o644); err != nil {
		return w, err
	}
	if _, err := command(dir, "build", "-o", binary, file); err != nil {
		return w, err
	}
	info, err := os.Stat(binary)
	if err != nil {
		return w, err
	}
	deps, err := command(dir, "list", "-deps", file)
	return weight{len(strings.Fields(deps)), float64(info.Size()) / (1 << 20)}, err
}

func command(dir string, args ...string) (string, error) {
	cmd := exec.Command("go", args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, exit.Stderr)
	}
	return string(out), err
}
