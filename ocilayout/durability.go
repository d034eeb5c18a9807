package ocilayout

import "fmt"

// Durability is what an answer promises.
type Durability int

const (
	// Process is the default: what was answered outlives the process, however that ends. It outlives
	// a power cut once a flush that began after the answer is complete; one begins within a second
	// of a change, and writers are slowed where more is waiting than a flush can carry.
	Process Durability = iota
	// Power makes each answer wait for the disk.
	Power
)

// String returns the option's name, "process" or "power".
func (d Durability) String() string {
	if d == Power {
		return "power"
	}
	return "process"
}

// ParseDurability reads what String writes.
func ParseDurability(s string) (Durability, error) {
	for _, d := range []Durability{Process, Power} {
		if s == d.String() {
			return d, nil
		}
	}
	return 0, fmt.Errorf("durability %.20q: it is process or power", s)
}
