package pin

import "strings"

// suggest says what to write in place of an unknown word.
func suggest(word string, known []string) string {
	for _, k := range known {
		if len(word) <= 2*len(k) && distance(strings.ToLower(word), strings.ToLower(k)) <= 2 {
			return `did you mean "` + k + `"?`
		}
	}
	return "known are " + strings.Join(known, ", ")
}

// distance counts the bytes to insert, delete or replace to make b of a (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}
