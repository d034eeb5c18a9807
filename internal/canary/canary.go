// Package canary finds the secrets of tests where none may be: in logs, errors and command lines.
//
// A password, a token or a key that a test uses begins with [Mark]. In base64, as a header has a user and a password, and as a
// signed token has its claims, the mark looks different by where it begins in its group of three bytes; it is found there all the same.
package canary

import (
	"encoding/base64"
	"strings"
)

// Mark is how a secret of a test begins.
const Mark = "canary."

// Longest is how many bytes what is looked for has at most.
const Longest = 4 * (len(Mark) + 2) / 3

// Find returns the first secret in a text, or what can be seen of it, and "" where there is none.
func Find(text string) string {
	found, at := "", len(text)
	for _, sign := range signs {
		if i := strings.Index(text[:min(at+len(sign), len(text))], sign); i >= 0 && i < at {
			found, at = sign, i
		}
	}
	if found == Mark {
		return until(text[at:], " \t\r\n\"'`,;)}]&")
	}
	return found
}

// until is a text up to one of some characters, and not all of a long one.
func until(text, ends string) string {
	if i := strings.IndexAny(text, ends); i >= 0 {
		text = text[:i]
	}
	return text[:min(len(text), 100)]
}

// signs are what is looked for: the mark, and what of it is the same in all texts in base64 in which it begins at one of the three
// places. None of these characters are different in the alphabet for URLs.
var signs = func() []string {
	all := []string{Mark}
	for before := range 3 {
		encoded := base64.RawStdEncoding.EncodeToString([]byte(strings.Repeat("x", before) + Mark))
		first := (8*before + 5) / 6 // the first character that is of the mark alone
		last := 8 * (before + len(Mark)) / 6
		all = append(all, encoded[first:last])
	}
	return all
}()
