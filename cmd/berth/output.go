package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/opencontainers/go-digest"
)

func printJSON(v any) error {
	enc := json.NewEncoder(os.Stdout)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// print writes data for programs or lines for people.
func (a *app) print(data any, lines []string) error {
	if a.json {
		return printJSON(data)
	}
	for _, line := range lines {
		if _, err := fmt.Println(line); err != nil {
			return err
		}
	}
	return nil
}

// short is the part of a digest that people compare.
func short(d digest.Digest) string {
	const most = 19 // "sha256:" and twelve digits
	return string(d[:min(len(d), most)])
}

func size(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%d B", n)
}
