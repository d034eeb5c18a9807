// Step is a step of a build in the end-to-end tests: it writes something to a file that no other run
// writes. It needs nothing from the image that it runs in.
//
//	step FILE
package main

import (
	"crypto/rand"
	"fmt"
	"os"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: step FILE")
		os.Exit(2)
	}
	if err := os.WriteFile(os.Args[1], []byte(rand.Text()), 0o644); err != nil {
		fmt.Fprintln(os.Stderr, "step:", err)
		os.Exit(1)
	}
}
